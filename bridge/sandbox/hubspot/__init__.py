"""Mock HubSpot account: CRM objects, properties, associations, search, pipelines."""

"""A HubSpot account: CRM objects, properties, associations, search, pipelines."""

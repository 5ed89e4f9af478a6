"""The stages after ingest: route stored events, attempt due deliveries, follow up on failures."""

"""Mock Pipedrive."""

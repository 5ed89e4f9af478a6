"""Mock Zendesk: users, tickets and their audits, and what an administrator sets up."""

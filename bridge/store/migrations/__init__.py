"""Migrations: additive only, so that old and new replicas can run side by side."""

"""Migrations: additive only, so that workers of the old and the new version can run side by side."""

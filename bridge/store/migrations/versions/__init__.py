"""Migration scripts: one file per revision, never changed once released."""

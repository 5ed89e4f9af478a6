"""The connectors that ship with the bridge: one file or folder is one whole connector."""

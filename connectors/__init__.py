"""The connectors that ship with the bridge: one file is one whole connector."""

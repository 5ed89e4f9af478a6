"""rules.yaml: load it, match events with it, render what it says, route."""

"""bridge: connects Heppu's voice and chat agents to the tools a company already uses."""

__version__ = "0.1.0"

"""Local stand-ins for the partners: stateful, as strict as the real ones, and failing on demand."""

from bridge.sandbox.server import RunningSandbox, start_sandbox

__all__ = ["RunningSandbox", "start_sandbox"]

"""Local mock providers: stateful, as strict as the real ones, and able to fail on demand."""

from bridge.sandbox.server import RunningSandbox, start_sandbox

__all__ = ["RunningSandbox", "start_sandbox"]

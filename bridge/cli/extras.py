"""Optional dependencies: a clear error for commands whose extra is not installed."""

from __future__ import annotations

from importlib.util import find_spec


def require_sandbox(command: str) -> None:
    """Raise ConfigError if the libraries of the `sandbox` extra, which `command` needs, are not installed."""
    from bridge.errors import ConfigError

    if find_spec("aiosmtpd") is None:
        raise ConfigError(
            f"`{command}` needs the sandbox extra: run `pip install 'heppu-bridge[sandbox]'`, "
            "or `pip install '.[sandbox]'` in a checkout"
        )

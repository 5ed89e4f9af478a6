"""Command line: the `bridge` command, and the only package that wires all components together.

Commands import their dependencies when they run. `bridge --help` therefore stays fast, and a broken connector or a
missing SDK affects only the commands that use it. Results go to stdout, everything else to stderr. Exit codes: 0 for
success, 1 for a reported failure, 2 for wrong usage.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys

from bridge import __version__
from bridge.errors import BridgeError

GC_THRESHOLD = 20_000
"""New objects before a garbage collection. Python's default of 700 is reached with every few events of a service."""
_COMMAND_GC_THRESHOLD = 500_000
"""The same for a command, which creates half as many while it loads its modules, and they stay."""


def main() -> None:
    """Run the command line. An error the user can fix prints a message instead of a traceback."""
    if sys.stderr is None:
        # The caller closed it. A file that the service opens would get its descriptor, and the worker's log with it.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        os.set_inheritable(sys.stderr.fileno(), True)
    if sys.argv[1:] == ["--version"]:
        print(__version__)  # noqa: T201 - health checks and installers ask often, and the program has 20 modules
        return
    gc.set_threshold(_COMMAND_GC_THRESHOLD, *gc.get_threshold()[1:])
    # At exit, Python collects garbage in everything that is loaded, which takes a third of a short command.
    atexit.register(gc.freeze)
    # No plugin of pydantic has a use here, and looking for one reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from bridge.cli.program import app

    try:
        app()
    except BridgeError as error:
        from bridge.cli.output import print_error

        print_error(error)
        sys.exit(1)

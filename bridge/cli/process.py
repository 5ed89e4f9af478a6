"""What server and worker processes have in common: garbage collection and exit.

The worker imports this module instead of `bridge.cli.server`, whose HTTP server it does not need.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

from bridge.cli import GC_THRESHOLD
from bridge.telemetry import log

STOP_SECONDS = 25.0
"""Maximum time a shutdown waits for running attempts; another worker looks up the outcome of longer ones."""


def tune_gc() -> None:
    """Keep garbage collections rare and short from now on. `bridge.cli.serve` has disabled them for the start.

    Objects that exist now live as long as the process and are excluded from collection.
    """
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
    gc.freeze()
    gc.enable()


def exit_immediately(number: int) -> None:
    """Exit now. Another worker looks up the outcome of running attempts."""
    log.warning("stopped immediately", signal=signal.Signals(number).name)
    os._exit(128 + number)


def exit_process(clean: bool) -> None:
    """Exit with 0, even if attempts hang in their threads."""
    if not clean:
        log.warning("attempts still running at exit", advice="another worker looks up their outcome")
        sys.stdout.flush()
        os._exit(0)

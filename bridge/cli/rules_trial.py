"""Process that tries changed rules for the dashboard, and the runner that starts it.

`python -m bridge.cli.rules_trial` reads one request as JSON from its standard input and writes the result as JSON. It
reads the database and changes nothing. It has a low priority, limited memory and limited time, so that a trial never
disturbs the service, whatever the rules are.

Request: `mode` (`check`, `plan` or `explain`), `files` (`name` and `text` of each), for a plan `baseline` (the text of
the rules to compare with) and `since`, for a forecast `event` (a stored ID or an event type), `changes` (fields of its
body) and `at`. Result: see `bridge.dryrun.trial`, or `error`, a sentence.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bridge.web.rules_trial import TrialFailed

if TYPE_CHECKING:
    from bridge.connector.discovery import Registry
    from bridge.rules.model import LoadResult, Rules
    from bridge.settings import Settings

TIMEOUT_SECONDS: Final = 30.0
"""The process is killed after this time."""
CPU_SECONDS: Final = 25
MAX_MEMORY: Final = 1024 * 1024 * 1024
"""Bytes of data that the process may allocate."""
_BUSY: Final = "another trial is running: try again in a few seconds"
_TOO_SLOW: Final = "the rules take too long to compare here: use `bridge plan`, which has no time limit"


class TrialProcess:
    """Runs trials in processes of their own, one at a time."""

    def __init__(self, environ: Mapping[str, str], timeout: float = TIMEOUT_SECONDS) -> None:
        self._environ = environ
        self._timeout = timeout
        self._lock = threading.Lock()

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run a trial and return its result. Raise TrialFailed."""
        if not self._lock.acquire(blocking=False):
            raise TrialFailed(_BUSY)
        try:
            process = subprocess.run(
                # -P: a file in the working folder must not shadow a module.
                [sys.executable, "-P", "-m", "bridge.cli.rules_trial"],
                input=json.dumps(request).encode(),
                env=dict(self._environ),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TrialFailed(_TOO_SLOW) from None
        finally:
            self._lock.release()
        try:
            result: dict[str, Any] = json.loads(process.stdout)
        except ValueError:
            raise TrialFailed(
                f"the trial ended without a result (exit code {process.returncode}): it used too much time or memory; "
                "use `bridge plan`"
            ) from None
        if "error" in result:
            raise TrialFailed(result["error"])
        return result


def run_trial(request: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Run a trial in this process and return its result. Raise BridgeError."""
    from bridge.cli.bootstrap import registry_for
    from bridge.dryrun.trial import check_json
    from bridge.rules.load import load
    from bridge.rules.sources import SourceFile
    from bridge.settings import Settings

    settings = Settings.load(environ)
    path = settings.bridge_rules_file
    registry = registry_for(path, settings)
    files = [SourceFile(file["name"], file["text"], file["name"]) for file in request["files"]]
    loaded = load(files, path=str(path), registry=registry, environ=environ)
    rules = loaded.rules or _rules_without_settings(loaded, files, str(path), registry)
    result = check_json(loaded, rules)
    if rules is None:
        return result
    if request["mode"] == "check":
        from bridge.dryrun.trial_tests import run_own_tests

        return result | {"tests": run_own_tests(rules, settings.bridge_default_country)}
    if request["mode"] == "plan":
        return result | {"plan": _plan(request, rules, settings, registry)}
    return result | {"forecast": _explain(request, rules, settings)}


def _rules_without_settings(
    loaded: LoadResult, files: list[Any], path: str, registry: Registry
) -> Rules | None:
    """Return rules that are only unusable because a connection is not set up: they can be tried anyway."""
    from bridge.rules.load import load

    if any(item.level == "error" and item.connection is None for item in loaded.diagnostics):
        return None
    return load(files, path=path, registry=registry).rules


def _plan(request: Mapping[str, Any], rules: Rules, settings: Settings, registry: Registry) -> dict[str, Any]:
    from bridge.cli.db import open_store
    from bridge.dryrun.trial import MAX_EVENT_BYTES, MAX_EVENTS, TooSlow, compare, plan_json
    from bridge.rules.load import load_or_raise
    from bridge.store.newest_events import newest_events

    baseline = load_or_raise(request["baseline"], path="the active rules", registry=registry)
    with open_store(settings) as database:
        found = newest_events(
            database, _instant(request["since"]), limit=MAX_EVENTS, max_bytes=MAX_EVENT_BYTES
        )
    try:
        result = compare(baseline, rules, found.events, allowlist=settings.bridge_recipient_allowlist)
    except TooSlow:
        raise TrialFailed(_TOO_SLOW) from None
    return plan_json(result, found.total, is_capped=found.is_capped)


def _explain(request: Mapping[str, Any], rules: Rules, settings: Settings) -> dict[str, Any]:
    from bridge.cli.bootstrap import address_hasher
    from bridge.cli.db import open_store
    from bridge.dryrun.trial import InvalidEvent, changed_event, explain_json, sample_event
    from bridge.errors import Refused
    from bridge.store.contact_history import contact_history
    from bridge.store.policy_inputs import inputs_for_planned
    from bridge.store.queries import stored_body, stored_event

    name, changes = request["event"], request.get("changes") or {}
    now = _instant(request["at"]) if request.get("at") else datetime.now(UTC)
    country, hasher = settings.bridge_default_country, address_hasher(settings)
    with open_store(settings) as database:
        try:
            if not name.startswith("evt_"):
                event = sample_event(name, changes, now, country)
            elif changes:
                event = changed_event(stored_body(database, name), changes, now, country)
            else:
                event = stored_event(database, name)
        except (InvalidEvent, Refused) as error:
            raise TrialFailed(str(error)) from None
        with contact_history(database) as history:
            return explain_json(
                event,
                rules,
                now,
                load_inputs=lambda planned: inputs_for_planned(
                    database, planned, event, rules.messaging, hasher
                ),
                history=history,
                allowlist=settings.bridge_recipient_allowlist,
            )


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _limit_resources() -> None:
    """Lower the priority of this process, and limit its memory and computing time."""
    import resource

    os.nice(10)
    for kind, value in ((resource.RLIMIT_DATA, MAX_MEMORY), (resource.RLIMIT_CPU, CPU_SECONDS)):
        with suppress(ValueError, OSError):  # a lower limit is set already
            resource.setrlimit(kind, (value, value))


def main() -> None:
    """Run the trial of the request on the standard input."""
    from bridge.errors import BridgeError

    _limit_resources()
    result_file = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # only the result goes there
    try:
        result = run_trial(json.load(sys.stdin), os.environ)
    except BridgeError as error:
        result = {"error": str(error)}
    except MemoryError:
        result = {"error": "the trial needs too much memory: use `bridge plan`, or choose a shorter period"}
    except Exception as error:
        result = {
            "error": f"unexpected {type(error).__name__}: please report this bug; `bridge plan` shows more"
        }
    with result_file:
        json.dump(result, result_file, default=str)


if __name__ == "__main__":
    main()

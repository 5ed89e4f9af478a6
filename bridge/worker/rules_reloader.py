"""Rules reloader: reloads the rules files of a running service when one changes, and keeps the old rules on errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from bridge.connector.discovery import Registry
from bridge.errors import ConfigError
from bridge.rules.files import Stamp, read_rules_files, stamp
from bridge.rules.load import load_or_raise
from bridge.rules.model import Diagnostic, Rules
from bridge.rules.report import one_line
from bridge.telemetry import log


def read_rules(path: Path, registry: Registry, environ: Mapping[str, str] | None, ending: str) -> Rules:
    """Load the rules of a file or folder. Raise RulesError with all diagnostics, or ConfigError if it cannot be read.

    With `environ`, a connection without settings is an error too. `ending` is added to the error's message.
    """
    files = read_rules_files(path)
    return load_or_raise(files, path=str(path), registry=registry, environ=environ, ending=ending)


class RulesFile:
    """The active rules, and the errors of the files on disk, if any."""

    def __init__(
        self,
        path: Path,
        registry: Registry,
        environ: Mapping[str, str] | None,
        *,
        before_change: Callable[[Rules], None] = lambda _: None,
        after_reload: Callable[[Rules], object] = lambda _: None,
        quiet: bool = False,
        fallback_text: str | None = None,
    ) -> None:
        """Load the file. Raise ConfigError if that fails and there is no `fallback_text`.

        `before_change` is called with changed rules before they become active; if it raises ConfigError, the old rules
        stay active. `after_reload` is called with the active rules after each reload. `quiet` disables logging, for a
        process whose server follows and logs the same file. `fallback_text` is the text of the server's active rules:
        they are used here too while the file has errors.
        """
        self.path = path
        self._before_change = before_change
        self._after_reload = after_reload
        self._quiet = quiet
        self._registry = registry
        self._environ = environ
        self._lock = threading.Lock()
        self._last_stamp: Stamp | None = stamp(path)
        self.loaded_at = datetime.now(UTC)
        """When the active rules were loaded."""
        self.diagnostics: tuple[Diagnostic, ...] = ()
        self.texts: Mapping[str, str] = {}
        """Path -> text of the files that `diagnostics` are about."""
        self.load_error: str | None = None
        """Why the file on disk is not active; None if it is."""
        ending = "; the service does not start"
        try:
            self.current: Rules = read_rules(path, registry, environ, ending)
        except ConfigError as error:
            if fallback_text is None:
                raise
            self.current = load_or_raise(
                fallback_text, path=str(path), registry=registry, environ=environ, ending=ending
            )
            self.load_error = str(error)

    def reload_if_changed(self) -> bool:
        """Reload the files if one was added, changed or removed; return True if new rules are active."""
        return stamp(self.path) != self._last_stamp and self.reload()

    def reload(self) -> bool:
        """Read the files again; return True if new rules are active. On errors, the old rules stay active."""
        with self._lock:
            # Taken before reading: a change in the meantime is then a change since.
            self._last_stamp = stamp(self.path)
            try:
                rules = read_rules(
                    self.path, self._registry, self._environ, "; the running rules were not changed"
                )
                self._before_change(rules)
            except ConfigError as error:
                self.load_error = str(error)
                self.diagnostics = getattr(error, "diagnostics", ())
                self.texts = getattr(error, "texts", {})
                if not self._quiet:
                    log.error(
                        "rules not reloaded",
                        diagnostics=[one_line(diagnostic) for diagnostic in self.diagnostics]
                        or [self.load_error],
                        advice="the running rules were not changed; fix the file, `bridge check` shows the errors",
                    )
                return False
            except Exception:
                self._last_stamp = None  # for example, the database is unavailable: the next check retries
                raise
            self.load_error, self.diagnostics, self.texts = None, (), {}
            changed = rules.hash != self.current.hash
            self.current = rules
            if changed:
                self.loaded_at = datetime.now(UTC)
            if not self._quiet:
                log.info("rules reloaded", path=str(self.path), rules=len(rules.rules), hash=rules.hash[:12])
        self._after_reload(rules)
        return changed

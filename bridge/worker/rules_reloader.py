"""The rules file of a running service: reloaded when it changes, and never replaced by a bad one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from bridge.connector.discovery import Registry
from bridge.errors import ConfigError
from bridge.rules.load import load
from bridge.rules.model import Problem, Rules
from bridge.rules.report import RulesError, one_line, report
from bridge.telemetry import log


def read_rules(path: Path, registry: Registry, environ: Mapping[str, str] | None, ending: str) -> Rules:
    """The rules in a file; raises RulesError with all its problems, ConfigError when it cannot be read.

    With `environ`, connections without settings are problems too. `ending` says what follows from them.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; set BRIDGE_RULES_FILE to your rules file"
        ) from None
    return _rules_in(text, path, registry, environ, ending)


def _rules_in(
    text: bytes, path: Path, registry: Registry, environ: Mapping[str, str] | None, ending: str
) -> Rules:
    loaded = load(text, path=str(path), registry=registry, environ=environ)
    if loaded.rules is None:
        raise RulesError(loaded.problems, text.decode("utf-8", "replace"), str(path), ending)
    return loaded.rules


class RulesFile:
    """The rules that run now, and what is wrong with the file on disk, if anything."""

    def __init__(
        self,
        path: Path,
        registry: Registry,
        environ: Mapping[str, str] | None,
        *,
        silent: bool = False,
        running: str | None = None,
    ) -> None:
        """`silent`: another process beside this one follows the same file, and says what became of it.

        `running` is the text of the rules that run there: while the file is bad, they run here too.
        """
        self.path = path
        self._silent = silent
        self._registry = registry
        self._environ = environ
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self.loaded_at = datetime.now(UTC)
        """Since when the rules that run have been running."""
        self.problems: tuple[Problem, ...] = ()
        self.trouble: str | None = None
        """Why the file on disk is not the one that runs; None when it is."""
        ending = "; the service does not start"
        try:
            self.current: Rules = read_rules(path, registry, environ, ending)
        except ConfigError as error:
            if running is None:
                raise
            self.current = _rules_in(running.encode(), path, registry, environ, ending)
            self.trouble = str(error)
        self.before_change: Callable[[Rules], None] = lambda _: None
        """Told of new rules before they run; a ConfigError keeps the old ones."""

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def reload_if_changed(self) -> bool:
        """Reload when the file on disk is another one than last seen; returns whether new rules run."""
        stamp = self._stamp()
        return stamp != self._seen and self.reload()

    def reload(self) -> bool:
        """Read the file again; the rules that run stay when it has problems. Returns whether new rules run."""
        with self._lock:
            self._seen = self._stamp()
            try:
                rules = read_rules(
                    self.path, self._registry, self._environ, "; the running rules were not changed"
                )
                self.before_change(rules)
            except ConfigError as error:
                self.trouble = str(error)
                self.problems = getattr(error, "problems", ())
                if not self._silent:
                    log.error(
                        "rules not reloaded",
                        problems=[one_line(problem, str(self.path)) for problem in self.problems]
                        or [self.trouble],
                        advice="the running rules were not changed; mend the file, `bridge check` shows the places",
                    )
                return False
            except Exception:
                self._seen = None  # the database is away, say: the next look tries again
                raise
            self.trouble, self.problems = None, ()
            changed = rules.hash != self.current.hash
            self.current = rules
            if changed:
                self.loaded_at = datetime.now(UTC)
            if not self._silent:
                log.info("rules reloaded", path=str(self.path), rules=len(rules.rules), hash=rules.hash[:12])
            return changed


__all__ = ["RulesError", "RulesFile", "read_rules", "report"]

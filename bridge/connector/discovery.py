"""Connector discovery: the shipped folder, the folder next to rules.yaml, then installed entry points.

A connector is a file `NAME.py` or a folder `NAME` with an `__init__.py`. It is imported on first use, because each SDK
costs memory and start-up time.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from bridge.connector.action import Action
from bridge.connector.action_name import ActionName
from bridge.connector.api import Connector
from bridge.connector.params import ConnectorSettings
from bridge.errors import AccountError, BridgeError, ConfigError

ENTRY_POINTS = "bridge.connectors"
_PACKAGE = "bridge_connectors"


@dataclass(frozen=True)
class ConnectorSource:
    """The file or package that provides a connector."""

    name: str
    origin: str
    """Path of the file or folder, or name of the installed package."""
    path: Path | None = None
    """The file to import; `__init__.py` if the connector is a folder."""
    entry_point: EntryPoint | None = None


@cache  # once a connector is loaded, `_import` has replaced the installed package in sys.modules
def shipped_folder() -> Path:
    """Return the folder of the shipped connectors: `connectors` in a checkout, `bridge_connectors` in the wheel."""
    checkout = Path(__file__).parents[2] / "connectors"
    if checkout.is_dir():
        return checkout
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the shipped connectors are missing; reinstall the bridge")
    return Path(next(iter(spec.submodule_search_locations)))


@cache  # the files of all installed packages are read, and the packages stay the same while a process runs
def _installed() -> tuple[EntryPoint, ...]:
    """Return the entry points of installed connectors."""
    return tuple(entry_points(group=ENTRY_POINTS))


class Registry:
    """All available connectors, each imported on first use."""

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self._loaded: dict[str, Connector] = {}
        self._sources: dict[str, ConnectorSource] = {}
        seen: set[Path] = set()
        for folder in (shipped_folder(), *folders):
            resolved = folder.resolve()
            if resolved in seen or not resolved.is_dir():
                continue
            seen.add(resolved)
            for source in sources_in(resolved):
                self._add(source)
        for entry in _installed():
            self._add(
                ConnectorSource(entry.name, entry.dist.name if entry.dist else entry.value, entry_point=entry)
            )

    def _add(self, source: ConnectorSource) -> None:
        other = self._sources.get(source.name)
        if other is not None:
            raise ConfigError(
                f"two connectors are named `{source.name}`: {other.origin} and {source.origin}; rename one of them"
            )
        self._sources[source.name] = source

    def names(self) -> list[str]:
        """Return the names of all connectors, imported or not."""
        return sorted(self._sources)

    def add(self, connector: Connector) -> None:
        """Add a connector that is already in memory (for tests)."""
        self._add(ConnectorSource(connector.name, "memory"))
        self._loaded[connector.name] = connector

    def origin(self, name: str) -> str:
        """Return the file or package that provides the connector, for display."""
        return self._sources[name].origin

    def connector(self, name: str) -> Connector:
        """Return the connector. Raise KeyError if it does not exist, ConfigError if it cannot be imported."""
        if name not in self._loaded:
            self._loaded[name] = _load(self._sources[name])
        return self._loaded[name]

    def action(self, use: str) -> Action:
        """Return the action named `connector.action`. Raise KeyError if it does not exist."""
        name = ActionName.parse(use)
        return self.connector(name.connector).actions[name.action]


def sources_in(folder: Path) -> Iterator[ConnectorSource]:
    """Yield the connectors in a folder. `tests`, which may be a package, contains their tests."""
    for path in sorted(folder.glob("[!_]*")):
        if path.suffix == ".py":
            yield ConnectorSource(path.stem, str(path), path)
        elif path.name != "tests" and (path / "__init__.py").is_file():
            yield ConnectorSource(path.name, str(path), path / "__init__.py")


def _load(source: ConnectorSource) -> Connector:
    try:
        module = _import(source.name, source.path) if source.path else None
        loaded = module if module else source.entry_point.load() if source.entry_point else None
    except BridgeError:
        raise
    except (Exception, SystemExit) as error:  # a module that calls sys.exit() must not end the service
        raise ConfigError(
            f"connector {source.origin} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if isinstance(loaded, types.ModuleType):
        loaded = getattr(loaded, "connector", None)
    if not isinstance(loaded, Connector):
        raise ConfigError(f"connector {source.origin} does not define `connector = Connector(...)`")
    if loaded.name != source.name:
        raise ConfigError(
            f"connector {source.origin} is named `{loaded.name}` in its code; file and connector need the same name"
        )
    return loaded


def _import(name: str, path: Path) -> types.ModuleType:
    """Import a file or folder as `bridge_connectors.<name>`, so that connectors/email does not shadow `email`."""
    if _PACKAGE not in sys.modules:
        package = types.ModuleType(_PACKAGE)
        package.__path__ = [str(shipped_folder())]
        sys.modules[_PACKAGE] = package
    qualified = f"{_PACKAGE}.{name}"
    loaded = sys.modules.get(qualified)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    _unload(qualified)
    folder = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(qualified, path, submodule_search_locations=folder)
    if spec is None or spec.loader is None:
        raise ConfigError(f"connector {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _unload(qualified)
        raise
    return module


def _unload(qualified: str) -> None:
    """Remove a connector's modules: those of a failed import, or of another connector with the same name."""
    for name in [name for name in sys.modules if name == qualified or name.startswith(f"{qualified}.")]:
        del sys.modules[name]


def variable_names(
    connector: Connector, connection: str, environ: Mapping[str, str] | None = None
) -> list[str]:
    """Return the names of the environment variables of the connection's settings."""
    return connector.settings.variables(connector.settings.prefix(connection), environ)


def name_variables(text: str, connector: Connector, connection: str) -> str:
    """Return a connector's message with the variables of `connection`: its own name those of its first connection."""
    own, prefix = connector.settings.prefix(connector.name), connector.settings.prefix(connection)
    return text if prefix == own else re.sub(rf"\b{own}(?!{prefix.removeprefix(own)})", prefix, text)


def name_variables_of(error: AccountError, connector: Connector, connection: str) -> None:
    """Do the same with what an account error says."""
    error.detail = name_variables(error.detail, connector, connection)
    error.fix = name_variables(error.fix, connector, connection)


SEALING_KEY_NEEDED = (
    "set BRIDGE_SECRET_KEY: the refresh token changes with every use, and is stored encrypted with that key"
)
"""What a connection whose first refresh token is a setting needs besides its own settings."""


def read_settings(connector: Connector, connection: str, environ: Mapping[str, str]) -> ConnectorSettings:
    """Return the connection's settings. Raise ConfigError with the names of missing or invalid variables."""
    prefix = connector.settings.prefix(connection)
    try:
        return connector.settings.from_environment(environ, prefix)
    except ConfigError as error:
        raise ConfigError(name_variables(str(error), connector, connection)) from None

"""Finding connectors: the shipped folder, the folder beside rules.yaml, then installed entry points.

A connector's file is imported only when something uses it: each SDK costs memory and start-up time.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from bridge.connector.api import Action, Connector, ConnectorSettings
from bridge.errors import BridgeError, ConfigError

ENTRY_POINTS = "bridge.connectors"
_PACKAGE = "bridge_connectors"


@dataclass(frozen=True)
class Source:
    """Where a connector comes from."""

    name: str
    origin: str
    """A file's path, or the name of the package that brings it."""
    path: Path | None = None
    entry_point: EntryPoint | None = None


def shipped_folder() -> Path:
    """The folder of the shipped connectors: in the wheel `bridge_connectors`, in a checkout `connectors`."""
    checkout = Path(__file__).parents[2] / "connectors"
    if checkout.is_dir():
        return checkout
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the shipped connectors are not installed; install the bridge again")
    return Path(next(iter(spec.submodule_search_locations)))


class Registry:
    """Every connector that can be used, imported on first use."""

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self._loaded: dict[str, Connector] = {}
        self._sources: dict[str, Source] = {}
        seen: set[Path] = set()
        for folder in (shipped_folder(), *folders):
            resolved = folder.resolve()
            if resolved in seen or not resolved.is_dir():
                continue
            seen.add(resolved)
            for path in sorted(resolved.glob("*.py")):
                if not path.stem.startswith("_"):
                    self._add(Source(path.stem, str(path), path=path))
        for entry in entry_points(group=ENTRY_POINTS):
            self._add(Source(entry.name, entry.dist.name if entry.dist else entry.value, entry_point=entry))

    def _add(self, source: Source) -> None:
        other = self._sources.get(source.name)
        if other is not None:
            raise ConfigError(
                f"two connectors are called `{source.name}`: {other.origin} and {source.origin}; rename one of them"
            )
        self._sources[source.name] = source

    def names(self) -> list[str]:
        """The names of all connectors, imported or not."""
        return sorted(self._sources)

    def add(self, connector: Connector) -> None:
        """Register a connector that is already in memory (tests)."""
        self._add(Source(connector.name, "memory"))
        self._loaded[connector.name] = connector

    def origin(self, name: str) -> str:
        """Where the connector comes from, for people."""
        return self._sources[name].origin

    def connector(self, name: str) -> Connector:
        """The connector; raises KeyError when there is none, ConfigError when its file is broken."""
        if name not in self._loaded:
            self._loaded[name] = _load(self._sources[name])
        return self._loaded[name]

    def action(self, use: str) -> Action:
        """The action behind `connector.action`; raises KeyError when there is none."""
        connector, _, action = use.partition(".")
        return self.connector(connector).actions[action]


def _load(source: Source) -> Connector:
    try:
        module = _import(source.name, source.path) if source.path else None
        found = module if module else source.entry_point.load() if source.entry_point else None
    except BridgeError:
        raise
    except (
        Exception,
        SystemExit,
    ) as error:  # a file that ends the process as it is imported ends nothing here
        raise ConfigError(
            f"connector {source.origin} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if isinstance(found, types.ModuleType):
        found = getattr(found, "connector", None)
    if not isinstance(found, Connector):
        raise ConfigError(f"connector {source.origin} has no `connector = Connector(...)`")
    if found.name != source.name:
        raise ConfigError(
            f"connector {source.origin} calls itself `{found.name}`; file and connector must have one name"
        )
    return found


def _import(name: str, path: Path) -> types.ModuleType:
    """Import a file as `bridge_connectors.<name>`, so that connectors/email.py shadows nothing."""
    if _PACKAGE not in sys.modules:
        package = types.ModuleType(_PACKAGE)
        package.__path__ = []
        sys.modules[_PACKAGE] = package
    qualified = f"{_PACKAGE}.{name}"
    loaded = sys.modules.get(qualified)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(qualified, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"connector {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[qualified]
        raise
    return module


def variables_of(connector: Connector, connection: str) -> list[str]:
    """The names of the variables that the connection's settings are read from."""
    model = connector.settings
    return [model.variable(model.prefix(connection), field) for field in model.model_fields]


def settings_of(connector: Connector, connection: str, environ: Mapping[str, str]) -> ConnectorSettings:
    """The connection's settings; raises ConfigError that names the variables that are missing."""
    return connector.settings.from_environment(environ, connector.settings.prefix(connection))

"""Implementation of `bridge connectors` and `bridge connections setup`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import typer
from rich.text import Text

from bridge.cli.account_check import set_up_account
from bridge.cli.accounts import connections_used_by
from bridge.cli.bootstrap import registry_for
from bridge.cli.dry_run import load_file
from bridge.cli.output import PrintedRecord, Record, Table, as_items, console, echo, render, result_line
from bridge.connector import Action, Connector, ConnectorGroup, ConnectorSettings
from bridge.connector.action_name import ActionName
from bridge.connector.discovery import Registry
from bridge.connector.egress import configure_egress
from bridge.connector.param_types import EMPTY, as_yaml, types_of
from bridge.connector.params import allows_none, example_of, template_of
from bridge.errors import ConfigError
from bridge.settings import Settings, environment


def _registry() -> Registry:
    settings = Settings.load(environment())
    return registry_for(settings.bridge_rules_file, settings)


def _find_connector(registry: Registry, name: str) -> Connector:
    try:
        return registry.connector(name)
    except KeyError:
        raise ConfigError(f"unknown connector `{name}`: choose from {', '.join(registry.names())}") from None


def list_connectors(as_json: bool) -> None:
    """Print every connector by group; a broken one with its error."""
    registry = _registry()
    groups = [group.value for group in ConnectorGroup]
    items = [_listed(registry, name) for name in registry.names()]
    items.sort(key=lambda item: groups.index(item["group"]))

    def starts_group(item: Mapping[str, Any]) -> bool:
        return next(other for other in items if other["group"] == item["group"]) is item

    render(
        Table(
            items,
            {
                "Group": lambda item: item["group"] if starts_group(item) else "",
                "Connector": "name",
                "Actions": lambda item: ", ".join(item["actions"]),
                "Description": lambda item: item["error"] or item["description"],
            },
            empty="No connectors.",
            footer=["\nSettings and parameters of a connector: `bridge connectors show NAME`"],
        ),
        as_json,
    )


def _listed(registry: Registry, name: str) -> dict[str, Any]:
    try:
        connector, error = registry.connector(name), None
    except ConfigError as failed:
        connector, error = None, str(failed)
    return {
        "name": name,
        "group": (connector.group if connector else ConnectorGroup.OTHER).value,
        "description": connector.description if connector else "",
        "actions": list(connector.actions) if connector else [],
        "origin": registry.origin(name),
        "error": error,
    }


def show_connector(name: str, as_json: bool) -> None:
    """Print one connector, or one of its actions."""
    registry = _registry()
    owner, action = ActionName.parse(name)
    connector = _find_connector(registry, owner)
    if action and action not in connector.actions:
        raise ConfigError(f"unknown action `{action}` of {owner}: choose from {', '.join(connector.actions)}")
    actions = [connector.actions[action]] if action else list(connector.actions.values())
    record = {
        "name": connector.name,
        "group": connector.group.value,
        "description": connector.description,
        "origin": registry.origin(owner),
        "settings": _settings(connector),
        "callbacks": [f"/webhooks/{connector.name}/{callback}" for callback in connector.callbacks],
        "has_check": connector.run_check is not None,
        "has_setup": connector.run_setup is not None,
        "actions": [_action(item) for item in actions],
    }
    render(PrintedRecord(record, partial(_print_connector, record)), as_json)


def _settings(connector: Connector) -> list[dict[str, Any]]:
    model = connector.settings
    prefix, descriptions = model.prefix(connector.name), model.descriptions()
    return [
        {
            "variable": model.variable(prefix, field),
            "required": info.is_required(),
            "description": descriptions.get(field, ""),
            "default": getattr(connector.limits, field) if field in ConnectorSettings.model_fields else None,
        }
        for field, info in model.ordered_fields().items()
    ]


def _action(action: Action) -> dict[str, Any]:
    types = types_of(action.params)
    return {
        "use": action.full_name,
        "description": action.description,
        "channel": action.channel,
        "batch": action.batch,
        "idempotent": action.idempotent,
        "has_lookup": action.run_lookup is not None,
        "needs": list(action.needs),
        "params": [
            {
                "name": field,
                "type": types[field],
                "description": info.description or "",
                "default": template_of(info) or (None if info.is_required() else info.default),
                "required": info.is_required() or (template_of(info) is not None and not allows_none(info)),
                "example": example_of(info),
            }
            for field, info in action.params.model_fields.items()
        ],
    }


def _print_connector(record: dict[str, Any]) -> None:
    console().print(Text(record["name"], "bold").append(f"  {record['description']}", "none"), soft_wrap=True)
    echo(record["origin"])
    console().print(Text("\nEnvironment variables", "bold cyan"))
    for setting in record["settings"]:
        optional = "" if setting["required"] else "  (optional)"
        if setting["default"] is not None:
            optional = f"  (default {setting['default']:g})"
        echo(
            f"  {setting['variable']}{optional}"
            + (f"  {setting['description']}" if setting["description"] else "")
        )
    for path in record["callbacks"]:
        echo(f"  callback URL: BRIDGE_PUBLIC_URL + {path}")
    for action in record["actions"]:
        console().print(
            Text(f"\n{action['use']}", "bold green").append(f"  {action['description']}", "none"),
            soft_wrap=True,
        )
        if action["channel"]:
            echo(f"  contacts recipients by {action['channel']}: quiet hours, opt-outs and caps apply")
        if action["needs"]:
            echo(f"  needs {', '.join(action['needs'])}")
        for param in action["params"]:
            _print_param(param)


def _print_param(param: dict[str, Any]) -> None:
    line = Text(f"  {param['name']}", "bold").append(f"  {param['type']}", "none")
    if param["default"] not in EMPTY:
        line.append(f"  default {as_yaml(param['default'])}", "dim")
    elif param["required"]:
        line.append("  required", "yellow")
    console().print(line, soft_wrap=True)
    example = f"  e.g. {as_yaml(param['example'])}" if param["example"] not in EMPTY else ""
    echo(f"      {param['description']}{example}")


def set_up_accounts(connection: str | None, yes: bool, as_json: bool) -> bool:
    """Run the setup of each account that has one. Return whether all succeeded."""
    environ = environment()
    settings = Settings.load(environ)
    configure_egress(settings)
    registry = registry_for(settings.bridge_rules_file, settings)
    used = connections_used_by(load_file(settings.bridge_rules_file, settings), registry)
    if connection is not None and connection not in used:
        raise ConfigError(
            f"connection `{connection}` is not used by rules.yaml: choose from {', '.join(sorted(used))}"
        )
    selected = {
        name: item for name, item in sorted(used.items()) if connection in (None, name) and item.run_setup
    }
    if not selected:
        suffix = f" for {connection}" if connection else ""
        render(Record(as_items([]), f"No setup needed{suffix}."), as_json)
        return True
    if not yes:
        typer.confirm(f"Create missing objects in {', '.join(selected)}?", abort=True, err=True)
    results = [set_up_account(name, connector, environ) for name, connector in selected.items()]
    lines = [result_line(result.ok, result.connection, result.text) for result in results]
    render(Record(as_items([result.to_json() for result in results]), "\n".join(lines)), as_json)
    return all(result.ok for result in results)

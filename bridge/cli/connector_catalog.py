"""What `bridge connectors` shows and does."""

from __future__ import annotations

from typing import Any

import typer
from rich.text import Text

from bridge.cli.account_check import set_up
from bridge.cli.bootstrap import connections_of, registry_for
from bridge.cli.dry_run import load_file
from bridge.cli.output import console, print_items, print_json, print_table, say
from bridge.connector import Action, Connector
from bridge.connector.api import allows_none, example_of, template_of
from bridge.connector.discovery import Registry
from bridge.errors import ConfigError
from bridge.settings import Settings, environment


def _registry() -> Registry:
    return registry_for(Settings.load(environment()).bridge_rules_file)


def _known(registry: Registry, name: str) -> Connector:
    try:
        return registry.connector(name)
    except KeyError:
        raise ConfigError(
            f"no connector is called `{name}`; there are {', '.join(registry.names())}"
        ) from None


def list_connectors(as_json: bool) -> None:
    """Every connector; a broken one with its trouble."""
    registry = _registry()
    items: list[dict[str, Any]] = []
    for name in registry.names():
        try:
            connector = registry.connector(name)
            items.append(
                {
                    "name": name,
                    "description": connector.description,
                    "actions": list(connector.actions),
                    "origin": registry.origin(name),
                    "trouble": None,
                }
            )
        except ConfigError as error:
            origin = registry.origin(name)
            items.append(
                {"name": name, "description": "", "actions": [], "origin": origin, "trouble": str(error)}
            )
    if as_json:
        print_items(items)
        return
    print_table(
        items,
        {
            "Connector": "name",
            "Actions": lambda item: ", ".join(item["actions"]),
            "What it does": lambda item: item["trouble"] or item["description"],
        },
        empty="There are no connectors.",
    )
    say("\n`bridge connectors show NAME` says what one needs and takes.")


def show_connector(name: str, as_json: bool) -> None:
    """One connector, or one of its actions."""
    registry = _registry()
    owner, _, action = name.partition(".")
    connector = _known(registry, owner)
    if action and action not in connector.actions:
        raise ConfigError(f"{owner} has no action `{action}`; it has {', '.join(connector.actions)}")
    actions = [connector.actions[action]] if action else list(connector.actions.values())
    found = {
        "name": connector.name,
        "description": connector.description,
        "origin": registry.origin(owner),
        "settings": _settings(connector),
        "callbacks": [f"/webhooks/{connector.name}/{callback}" for callback in connector.callbacks],
        "has_check": connector.run_check is not None,
        "has_setup": connector.run_setup is not None,
        "actions": [_action(item) for item in actions],
    }
    if as_json:
        print_json(found)
    else:
        _print_connector(found)


def _settings(connector: Connector) -> list[dict[str, Any]]:
    model = connector.settings
    prefix = model.prefix(connector.name)
    return [
        {
            "variable": model.variable(prefix, field),
            "required": info.is_required(),
            "description": info.description or "",
        }
        for field, info in model.model_fields.items()
    ]


def _action(action: Action) -> dict[str, Any]:
    return {
        "use": action.full_name,
        "description": action.description,
        "channel": action.channel,
        "batch": action.batch,
        "params": [
            {
                "name": field,
                "description": info.description or "",
                "default": template_of(info) or (None if info.is_required() else info.default),
                "required": info.is_required() or (template_of(info) is not None and not allows_none(info)),
                "example": example_of(info),
            }
            for field, info in action.params.model_fields.items()
        ],
    }


def _print_connector(found: dict[str, Any]) -> None:
    console().print(Text(found["name"], "bold").append(f"  {found['description']}", "none"), soft_wrap=True)
    say(found["origin"])
    console().print(Text("\nEnvironment", "bold cyan"))
    for setting in found["settings"]:
        need = "" if setting["required"] else "  (may be left out)"
        say(
            f"  {setting['variable']}{need}"
            + (f"  {setting['description']}" if setting["description"] else "")
        )
    for path in found["callbacks"]:
        say(f"  it calls back on {path}, below BRIDGE_PUBLIC_URL")
    for action in found["actions"]:
        console().print(
            Text(f"\n{action['use']}", "bold green").append(f"  {action['description']}", "none"),
            soft_wrap=True,
        )
        if action["channel"]:
            say(f"  reaches people by {action['channel']}: quiet hours, opt-outs and caps hold")
        for param in action["params"]:
            _print_param(param)


def _print_param(param: dict[str, Any]) -> None:
    line = Text(f"  {param['name']}", "bold")
    if param["default"] not in (None, "", {}, []):
        line.append(f"  default {param['default']}", "dim")
    elif param["required"]:
        line.append("  required", "yellow")
    console().print(line, soft_wrap=True)
    example = f"  e.g. {param['example']}" if param["example"] not in (None, "") else ""
    say(f"      {param['description']}{example}")


def set_up_accounts(connection: str | None, yes: bool, as_json: bool) -> bool:
    """Run the setup of each account that has one; returns whether all went well."""
    environ = environment()
    settings = Settings.load(environ)
    registry = registry_for(settings.bridge_rules_file)
    used = connections_of(load_file(settings.bridge_rules_file), registry)
    if connection is not None and connection not in used:
        raise ConfigError(f"rules.yaml uses no connection `{connection}`; it uses {', '.join(sorted(used))}")
    chosen = {
        name: item for name, item in sorted(used.items()) if connection in (None, name) and item.run_setup
    }
    if not chosen and as_json:
        print_items([])
        return True
    if not chosen:
        say("nothing to set up: " + (f"{connection} needs none" if connection else "no account needs it"))
        return True
    if not yes:
        typer.confirm(f"Make what is missing in {', '.join(chosen)}?", abort=True, err=True)
    verdicts = [set_up(name, connector, environ) for name, connector in chosen.items()]
    if as_json:
        print_items(verdicts)
    else:
        for verdict in verdicts:
            say(f"{'✓' if verdict['ok'] else '✗'} {verdict['connection']}: {verdict['text']}")
    return all(verdict["ok"] for verdict in verdicts)

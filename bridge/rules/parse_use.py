"""Parser of `use`: finds the action that a step names."""

from __future__ import annotations

from bridge.connector.action import Action
from bridge.connector.action_name import ActionName
from bridge.errors import BridgeError
from bridge.rules.parse_context import ParseContext
from bridge.rules.yaml import Node
from bridge.spelling import nearest


def find_action(context: ParseContext, node: Node, use: str) -> Action | None:
    """Return the action that `use` names. Add an error at the node if there is none."""
    if "." not in use:
        actions = _actions(context, use)
        hint = f"one of: {', '.join(actions)}" if actions else "write `use: connector.action`"
        context.error(node, f"`{use[:60]}` does not name an action", hint)
        return None
    try:
        return context.registry.action(use)
    except KeyError:
        pass
    except BridgeError as error:
        context.error(node, str(error), "fix or remove the connector's file, or remove this step")
        return None
    account, action_name = ActionName.parse(use)
    known = [action for other in _candidates(context, account) for action in _actions(context, other)]
    connector = next((n for n in context.registry.names() if use.startswith(f"{n}_")), None)
    if connector and f"{connector}.{action_name}" in known:
        hint = f"write `use: {connector}.{action_name}` and below it `connection: {account[:60]}`"
        context.error(node, f"unknown action `{use[:60]}`", hint)
        return None
    suggestion = nearest(use, known)
    hint = f"did you mean `{suggestion}`? " if suggestion else ""
    context.error(node, f"unknown action `{use[:60]}`", hint + "`bridge connectors` lists every action")
    return None


def _candidates(context: ParseContext, name: str) -> list[str]:
    names = context.registry.names()
    if name in names:
        return [name]
    similar = nearest(name, names, cutoff=0.6)
    return [similar] if similar else []


def _actions(context: ParseContext, connector: str) -> list[str]:
    try:
        return [action.full_name for action in context.registry.connector(connector).actions.values()]
    except (KeyError, BridgeError):
        return []

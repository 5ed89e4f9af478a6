"""What is missing in a connector's definition, as the conformance suite reports it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import SecretStr, TypeAdapter, ValidationError

from bridge.connector import Action, Connector
from bridge.connector.params import example_of
from bridge.rules.templates import is_template

_NOT_THE_SECRET_ITSELF = ("_file", "_sid", "_url")
"""Endings of settings that say where a secret is, or which one, and are shown: `api_key_sid`, `token_url`."""
_SECRET_NAME = re.compile(
    r"(token|secret|password|passphrase|private_key|api_key|shared_key|credential)", re.I
)
_SECRET_URL = re.compile(r"hook.*(url|address)|(url|address).*hook", re.I)
"""An incoming webhook: anyone who knows its URL can post."""


def conformance_errors(connector: Connector) -> list[str]:
    """Return what is missing in a connector's definition, one message per error, for its author."""
    errors = []
    name = connector.name
    if not connector.description:
        errors.append(f"Connector({name!r}): add a description of one sentence")
    if not connector.actions:
        errors.append(f"{name}: define at least one action")
    if connector.run_check is None:
        errors.append(f"{name}: decorate a function with @connector.check")
    elif not inspect.getdoc(connector.run_check):
        errors.append(f"{name}: add a docstring to the function under @connector.check")
    if connector.read_opt_out_flags is not None and not inspect.getdoc(connector.read_opt_out_flags):
        errors.append(f"{name}: add a docstring to the function under @connector.opt_out_flags")
    if connector.obtain_token is not None:
        errors += _token_errors(connector)
    for field, info in connector.settings.model_fields.items():
        plain = not any(part is SecretStr for part in _types_in(info.annotation))
        if _SECRET_NAME.search(field) and not field.endswith(_NOT_THE_SECRET_ITSELF) and plain:
            errors.append(f"{name}: the setting {field} must be a SecretStr")
        if _SECRET_URL.search(field) and plain:
            errors.append(f"{name}: the setting {field} must be a SecretUrl: anyone who knows it can post")
    for callback in connector.callbacks.values():
        if not inspect.getdoc(callback.run):
            errors.append(f"{name}: add a docstring to the callback {callback.name}")
    for action in connector.actions.values():
        errors += _action_errors(action)
    return errors


def _token_errors(connector: Connector) -> Iterator[str]:
    if not inspect.getdoc(connector.obtain_token):
        yield f"{connector.name}: add a docstring to the function under @connector.token"
    try:
        inspect.signature(connector.build_client or (lambda: None)).bind("settings", "tokens")
    except TypeError:
        yield f"{connector.name}: with @connector.token, the client is built with (settings, tokens)"


def _action_errors(action: Action) -> Iterator[str]:
    name = action.full_name
    if not action.description:
        yield f"{name}: add a docstring; its first line is the description"
    if action.channel and action.recipient not in action.params.model_fields:
        yield f"{name}: an action with a channel needs a param `{action.recipient}`"
    if action.run_lookup is not None and not inspect.getdoc(action.run_lookup):
        yield f"{name}: add a docstring to its lookup"
    if action.run_lookup is not None and action.idempotent is True:
        yield f"{name}: an idempotent action does not need a lookup"
    for field, info in action.params.model_fields.items():
        if not info.description:
            yield f"{name}: add a description to the param {field}"
        example = example_of(info)
        if example is None:
            yield f"{name}: add an example to the param {field}"
        elif not (isinstance(example, str) and is_template(example)):
            try:
                TypeAdapter(info.rebuild_annotation()).validate_python(example)
            except ValidationError as error:
                yield f"{name}: the example of {field} is not valid: {error.errors()[0]['msg']}"


def _types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _types_in(part)

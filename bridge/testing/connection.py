"""A connection for tests: runs a connector's actions, lookups, checks and callbacks without a bridge."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from bridge.clock import Clock, uptime
from bridge.connector import (
    FROM_EVENT,
    Action,
    ActionUse,
    BatchItem,
    CallbackReply,
    CallbackRequest,
    Connector,
    Context,
    OptOutFlag,
    RuleProblem,
    Success,
)
from bridge.connector.deadline import attempt_deadline
from bridge.connector.discovery import Registry, read_settings
from bridge.connector.idempotency import IdempotencyInput
from bridge.connector.params import MarkupLanguage, markup_of, template_of
from bridge.errors import ConfigError, DeliveryError, LookupInconclusive, OutcomeUnknown
from bridge.events import Event, dedupe_key_of
from bridge.rules.template_filters import MissingValue
from bridge.rules.templates import is_template, template, template_context
from bridge.samples import refresh_sample, sample
from bridge.worker.attempt import run_action as run_connector_action
from bridge.worker.attempt import run_lookup
from bridge.worker.result_policy import to_delivery_error

PUBLIC_URL = "https://bridge.example.com"
SENT_MESSAGE: Mapping[str, Any] = {
    "id": "dlv_sent",
    "rule": "text-when-busy",
    "action": "twilio.send_sms",
    "connection": "twilio",
    "state": "succeeded",
    "channel": "sms",
    "recipient": "+14155550123",
    "text": "We tried to call you.",
    "external_id": "SM00000000000000000000000000000001",
    "sent_at": "2026-11-28T12:00:00+00:00",
    "attempts": 1,
    "message": "twilio.send_sms of rule text-when-busy succeeded (dlv_sent)",
}
"""`delivery` in the templates of an action that is tested: a text message that was sent."""


def event(
    name: str = "call.completed", changes: Mapping[str, Any] | None = None, *, clock: Clock | None = None
) -> Event:
    """Return one of Heppu's documented events, with the current time.

    `changes` sets fields by their dotted path, as in `{"metadata.contactPhone": "+14155550123"}`; None removes a field.
    """
    now = (clock or Clock()).now()
    body = refresh_sample(sample(name), now)
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        target: dict[str, Any] = body
        for parent in parents:
            target = target.setdefault(parent, {})
        if value is None:
            target.pop(last, None)
        else:
            target[last] = copy.deepcopy(value)
    return Event(body, dedupe_key_of(body, b""), now, id="evt_test")


def build_context(event: Event, action: Action, connection: str = "", **overrides: Any) -> Context:
    """Return the context of a first attempt at `action` for `event`; `overrides` replace fields of Context."""
    now = overrides.pop("now", None) or datetime.now(UTC)
    name = connection or action.connector
    key_input = IdempotencyInput(
        name, action.full_name, event.dedupe_key, event.conversation.id, event.contact.key, ""
    )
    defaults: dict[str, Any] = {
        "delivery": "dlv_test",
        "connection": name,
        "event": event,
        "idempotency_key": action.idempotency.key(key_input),
        "now": now,
        "first_attempt_at": now,
        "public_url": PUBLIC_URL,
        "ids_used_by_others": lambda _ids: set(),
        "last_inbound_at": lambda _phone, _to: now,  # the contact has just written
    }
    return Context(**(defaults | overrides))


def render_params(
    action: Action, params: Mapping[str, Any], event: Event, now: datetime | None = None
) -> dict[str, Any]:
    """Return a rule's params and the action's defaults, rendered for one event, after a `SENT_MESSAGE`.

    A missing value is None in a default, and an error in the rule's own templates.
    """
    variables = template_context(event, now or datetime.now(UTC), "America/New_York", SENT_MESSAGE)
    fields = action.params.model_fields
    values = {
        name: _render(value, variables, markup=markup_of(fields[name]) if name in fields else None)
        for name, value in params.items()
    }
    for name, info in fields.items():
        default = template_of(info)
        if name not in values and default is not None:
            try:
                values[name] = template(default, markup_of(info))(variables)
            except MissingValue:
                values[name] = None
    return values


def _render(value: Any, variables: Mapping[str, Any], *, markup: MarkupLanguage | None) -> Any:
    if isinstance(value, Mapping):
        return {key: _render(item, variables, markup=markup) for key, item in value.items()}
    if isinstance(value, str) and is_template(value):
        return template(value, markup)(variables)
    return value


def _literals(value: Any) -> Any:
    """Return params as `check_rules` of a connector sees them: FROM_EVENT in place of each template."""
    if isinstance(value, Mapping):
        return {key: _literals(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literals(item) for item in value]
    return FROM_EVENT if isinstance(value, str) and is_template(value) else value


def load_connector(name: str, folder: Path | str | None = None) -> Connector:
    """Return the connector `name`: a shipped one, one in `folder`, or one of an installed package."""
    return Registry([Path(folder)] if folder else []).connector(name)


class Connected:
    """A connector with settings and a client; a context manager that closes the client.

    Exceptions of an action are classified as in the bridge: its methods raise the resulting DeliveryError.
    """

    def __init__(self, connector: Connector, environ: Mapping[str, str], connection: str = "") -> None:
        self.connector = connector
        self.name = connection or connector.name
        self.settings = read_settings(connector, self.name, environ)
        self.client: Any = connector.open_client(self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close = getattr(self.client, "close", None)
        if callable(close):
            close()

    def run(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        event: Event | None = None,
        context: Context | None = None,
        seconds: float | None = None,
    ) -> Success:
        """Make one attempt within `seconds` (None: the connector's own timeout). Raise DeliveryError if it fails."""
        result = self.run_batch(action, [(params or {}, event, context)], seconds=seconds)[0]
        if isinstance(result, Success):
            return result
        raise result

    def run_batch(
        self,
        action: str,
        deliveries: Sequence[tuple[Mapping[str, Any], Event | None, Context | None]],
        *,
        seconds: float | None = None,
    ) -> list[Success | DeliveryError]:
        """Make one attempt at several deliveries and return one result for each, in their order."""
        definition = self.connector.actions[action]
        items = [self._batch_item(definition, *delivery) for delivery in deliveries]
        # One call for a batch, otherwise one per delivery, as the worker makes them.
        calls = [items] if definition.batch > 1 else [[item] for item in items]
        results: list[Success | DeliveryError] = []
        for call in calls:
            returned = self._attempt(
                lambda call=call: run_connector_action(self.connector, definition, self.client, call), seconds
            )
            results += (
                [returned] * len(call) if isinstance(returned, DeliveryError) else map(_not_none, returned)
            )
        return results

    def find(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        event: Event | None = None,
        context: Context | None = None,
    ) -> Success | None:
        """Run the action's lookup. Raise DeliveryError or LookupInconclusive."""
        definition = self.connector.actions[action]
        if definition.run_lookup is None:
            raise LookupInconclusive(f"{definition.full_name} has no lookup")
        item = self._batch_item(definition, params or {}, event, context)
        result: Success | DeliveryError | None = self._attempt(
            lambda: run_lookup(definition, self.client, item), None
        )
        if isinstance(result, DeliveryError):
            raise result
        return result

    def opt_out_flags(
        self, emails: Sequence[str], phones: Sequence[str], *, seconds: float | None = None
    ) -> Mapping[str, Sequence[OptOutFlag]]:
        """Read the opt-out flags of these addresses, as the bridge does before a message. Raise DeliveryError."""
        read = self.connector.read_opt_out_flags
        if read is None:
            raise LookupError(f"{self.connector.name} has no opt-out flags")
        result = self._attempt(lambda: read(self.client, list(emails), list(phones)), seconds)
        if isinstance(result, DeliveryError):
            raise result
        flags: Mapping[str, Sequence[OptOutFlag]] = result
        return flags

    def check(self) -> str:
        """Run the connector's check, as `bridge check --online` does. Raise DeliveryError or ConfigError."""
        return str(self._run_account_function(self.connector.run_check, "check"))

    def check_rules(self, *steps: tuple[str, Mapping[str, Any]]) -> list[RuleProblem]:
        """Check steps, each an action and its params, as `bridge check --online` does. Raise DeliveryError."""
        run = self.connector.run_check_rules
        uses = [ActionUse(self.connector.actions[name], _literals(params)) for name, params in steps]
        return list(self._run_account_function(run and (lambda client: run(client, uses)), "check_rules"))

    def setup(self) -> str:
        """Run the connector's setup, as `bridge connections setup` does. Raise DeliveryError or ConfigError."""
        return str(self._run_account_function(self.connector.run_setup, "setup"))

    def _run_account_function(self, run: Callable[..., Any] | None, name: str) -> Any:
        if run is None:
            raise LookupError(f"{self.connector.name} has no {name}")
        result = self._attempt(lambda: run(self.client), None)
        if isinstance(result, DeliveryError):
            raise result.__cause__ if isinstance(result.__cause__, ConfigError) else result
        return result

    def callback(
        self,
        name: str,
        *,
        url: str = "",
        form: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> CallbackReply:
        """Send the connector a callback request. Raise Refused if it is rejected."""
        pairs = list(form.items()) if isinstance(form, Mapping) else list(form)
        target = url or f"{PUBLIC_URL}/webhooks/{self.name}/{name}"
        request = CallbackRequest(
            url=target,
            headers={key.lower(): value for key, value in (headers or {}).items()},
            form=pairs,
            query=dict(parse_qsl(urlsplit(target).query)),
            body=body or urlencode(pairs).encode(),
        )
        return self.connector.callbacks[name].run(self.settings, request)

    def _batch_item(
        self, action: Action, params: Mapping[str, Any], about: Event | None, context: Context | None
    ) -> BatchItem[Any]:
        about = about or (context.event if context else event())
        context = context or build_context(about, action, self.name)
        context = replace(context, steps=context.steps.next_attempt())
        values = render_params(action, params, about, context.now)
        return BatchItem(action.params.model_validate(values), context)

    def _attempt(self, call: Any, seconds: float | None) -> Any:
        """Return the result of `call`, or the DeliveryError for the exception that it raised."""
        limit = self.connector.limits.timeout if seconds is None else seconds
        try:
            with attempt_deadline(uptime() + limit):
                result = call()
                return asyncio.run(result) if inspect.iscoroutine(result) else result
        except LookupInconclusive:
            raise
        except Exception as error:
            failure = to_delivery_error(error, self.connector.classify)
            failure.__cause__ = None if failure is error else error
            return failure


def _not_none(result: Any) -> Any:
    if result is None:
        return OutcomeUnknown("the action returned nothing", reason="internal_error")
    return result


def connect(connector: Connector, environ: Mapping[str, str], connection: str = "") -> Connected:
    """Return a connection with the settings in `environ`. Raise ConfigError if a setting is missing or invalid."""
    return Connected(connector, environ, connection)


def run_action(
    connector: Connector,
    action: str,
    params: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str],
    event: Event | None = None,
    context: Context | None = None,
) -> Success:
    """Connect, make one attempt and close. Raise DeliveryError if the attempt fails."""
    with connect(connector, environ) as connected:
        return connected.run(action, params, event=event, context=context)

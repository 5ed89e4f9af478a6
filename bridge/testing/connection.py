"""One connection of a connector, tried without a bridge around it."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from bridge.clock import Clock, uptime
from bridge.connector import Action, BatchItem, CallbackReply, CallbackRequest, Connector, Context, Success
from bridge.connector.api import Cause, is_html, template_of
from bridge.connector.deadline import attempt_deadline
from bridge.connector.discovery import Registry, settings_of
from bridge.errors import ConfigError, DeliveryError, LookupInconclusive
from bridge.events import Event, dedupe_key_of
from bridge.rules.template_filters import Missing
from bridge.rules.templates import is_template, names_of, template
from bridge.samples import sample, stamped
from bridge.worker.result_policy import failure_of

PUBLIC_URL = "https://bridge.example.com"


def event(
    name: str = "call.completed", changes: Mapping[str, Any] | None = None, *, clock: Clock | None = None
) -> Event:
    """One of Heppu's documented events, as if it had just happened.

    `changes` sets fields by their dotted path: `{"metadata.contactPhone": "+14155550123"}`; None removes one.
    """
    now = (clock or Clock()).now()
    body = stamped(sample(name), now)
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        place: dict[str, Any] = body
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = copy.deepcopy(value)
    return Event(body, dedupe_key_of(body, b""), now, id="evt_test")


def build_context(event: Event, action: Action, connection: str = "", **facts: Any) -> Context:
    """The context of a first attempt at `action` for `event`; `facts` replace any field of Context."""
    now = facts.pop("now", None) or datetime.now(UTC)
    name = connection or action.connector
    cause = Cause(name, action.full_name, event.dedupe_key, event.conversation.id, event.contact.key, "")
    known: dict[str, Any] = {
        "delivery": "dlv_test",
        "connection": name,
        "event": event,
        "idempotency_key": action.idempotency.key(cause),
        "now": now,
        "first_attempt_at": now,
        "public_url": PUBLIC_URL,
        "ids_used_by_others": lambda _ids: set(),
    }
    return Context(**(known | facts))


def rendered(
    action: Action, params: Mapping[str, Any], event: Event, now: datetime | None = None
) -> dict[str, Any]:
    """The params of a rule for one event: its own values and the action's defaults, templates filled in.

    What a default finds missing is None; in the rule's own templates it is an error.
    """
    names = names_of(event, now or datetime.now(UTC), "America/New_York")
    fields = action.params.model_fields
    values = {
        name: _filled(given, names, html=name in fields and is_html(fields[name]))
        for name, given in params.items()
    }
    for name, info in fields.items():
        default = template_of(info)
        if name not in values and default is not None:
            try:
                values[name] = template(default, is_html(info))(names)
            except Missing:
                values[name] = None
    return values


def _filled(value: Any, names: Mapping[str, Any], *, html: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, names, html=html) for key, item in value.items()}
    if isinstance(value, str) and is_template(value):
        return template(value, html)(names)
    return value


def load_connector(name: str, folder: Path | str | None = None) -> Connector:
    """The connector `name` as a bridge finds it: shipped, in `folder`, or in an installed package."""
    return Registry([Path(folder)] if folder else []).connector(name)


class Connected:
    """A connector with settings and a client; a context manager that closes the client.

    What an action raises comes out as the bridge sees it: a DeliveryError, whose class says what would happen next.
    """

    def __init__(self, connector: Connector, environ: Mapping[str, str], connection: str = "") -> None:
        self.connector = connector
        self.name = connection or connector.name
        self.settings = settings_of(connector, self.name, environ)
        build = connector.build_client
        self.client: Any = build(self.settings) if build else self.settings

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
        """Make one attempt within `seconds` (the connector's own timeout when None); raises DeliveryError."""
        answer = self.run_batch(action, [(params or {}, event, context)], seconds=seconds)[0]
        if isinstance(answer, Success):
            return answer
        raise answer

    def run_batch(
        self,
        action: str,
        deliveries: Sequence[tuple[Mapping[str, Any], Event | None, Context | None]],
        *,
        seconds: float | None = None,
    ) -> list[Success | DeliveryError]:
        """Make one attempt at several deliveries; one answer for each, in their order."""
        found = self.connector.actions[action]
        jobs = [self._job(found, *delivery) for delivery in deliveries]
        if found.batch == 1:
            return [
                self._attempt(lambda job=job: found.run(self.client, job.params, job.context), seconds)
                for job in jobs
            ]
        answer = self._attempt(lambda: list(found.run(self.client, jobs)), seconds)
        return [answer] * len(jobs) if isinstance(answer, DeliveryError) else list(answer)

    def find(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        event: Event | None = None,
        context: Context | None = None,
    ) -> Success | None:
        """Look an attempt of unknown outcome up; raises DeliveryError or LookupInconclusive."""
        found = self.connector.actions[action]
        if found.finder is None:
            raise LookupInconclusive(f"{found.full_name} has no lookup")
        job = self._job(found, params or {}, event, context)
        finder = found.finder
        answer: Success | DeliveryError | None = self._attempt(
            lambda: finder(self.client, job.params, job.context), None
        )
        if isinstance(answer, DeliveryError):
            raise answer
        return answer

    def check(self) -> str:
        """Run the connector's check, as `bridge check --online` does; raises DeliveryError or ConfigError."""
        return self._ask(self.connector.run_check, "check")

    def setup(self) -> str:
        """Run the connector's setup, as `bridge connections setup` does; raises DeliveryError or ConfigError."""
        return self._ask(self.connector.run_setup, "setup")

    def _ask(self, run: Callable[..., str] | None, what: str) -> str:
        if run is None:
            raise LookupError(f"{self.connector.name} has no {what}")
        answer = self._attempt(lambda: run(self.client), None)
        if isinstance(answer, DeliveryError):
            raise answer.__cause__ if isinstance(answer.__cause__, ConfigError) else answer
        return str(answer)

    def callback(
        self,
        name: str,
        *,
        url: str = "",
        form: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> CallbackReply:
        """Let the partner call back; raises Refused."""
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

    def _job(
        self, action: Action, params: Mapping[str, Any], about: Event | None, context: Context | None
    ) -> BatchItem[Any]:
        about = about or (context.event if context else event())
        context = context or build_context(about, action, self.name)
        return BatchItem(action.params.model_validate(rendered(action, params, about, context.now)), context)

    def _attempt(self, call: Any, seconds: float | None) -> Any:
        """What `call` returns, or the DeliveryError that the bridge makes of what it raises."""
        limit = self.connector.limits.timeout if seconds is None else seconds
        try:
            with attempt_deadline(uptime() + limit):
                answer = call()
                return asyncio.run(answer) if inspect.iscoroutine(answer) else answer
        except LookupInconclusive:
            raise
        except Exception as error:
            failure = failure_of(error, self.connector.classify)
            failure.__cause__ = None if failure is error else error
            return failure


def connect(connector: Connector, environ: Mapping[str, str], connection: str = "") -> Connected:
    """A connection with the settings in `environ`; raises ConfigError that names what is missing."""
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
    """Connect, make one attempt, and close; raises DeliveryError."""
    with connect(connector, environ) as connected:
        return connected.run(action, params, event=event, context=context)

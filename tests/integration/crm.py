"""A CRM connection as the worker uses it: deliveries with a contact cache, against the sandbox."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from bridge.clock import Clock
from bridge.connector import ContactProfile, Success
from bridge.errors import DeliveryError
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.testing import build_context, connect, event, load_connector


class InMemoryContactCache:
    """Contact cache of a connection, in memory."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self.ttls: dict[str, timedelta] = {}
        self.known_profiles: dict[str, ContactProfile] = {}
        self.zones: dict[str, str] = {}
        self.lookup_count = 0

    def get(self, keys: Iterable[str]) -> Mapping[str, str]:
        self.lookup_count += 1
        return {key: self.ids[key] for key in keys if key in self.ids}

    def remember(self, ids: Mapping[str, str], ttl: timedelta = timedelta(days=7)) -> None:
        self.ids.update(ids)
        self.ttls.update(dict.fromkeys(ids, ttl))

    def profiles(self, ids: Iterable[str]) -> Mapping[str, ContactProfile]:
        return {key: self.known_profiles[key] for key in ids if key in self.known_profiles}

    def remember_profiles(self, profiles: Mapping[str, ContactProfile]) -> None:
        self.known_profiles.update(profiles)

    def remember_zones(self, zones: Mapping[str, str]) -> None:
        self.zones.update(zones)

    def forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.ids.pop(key, None)


class CrmConnection:
    """One connection to one provider of the sandbox."""

    def __init__(self, name: str, sandbox: RunningSandbox, environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.sandbox = sandbox
        self.clock = sandbox.clock
        self.connector = load_connector(name)
        unlimited = {f"{crm}_SEARCHES_PER_SECOND": "10000" for crm in ("HUBSPOT", "PIPEDRIVE")}
        self.connected = connect(self.connector, {**sandbox.environment, **unlimited, **(environ or {})})
        self.contact_cache = InMemoryContactCache()
        self.duplicates: list[tuple[str, str]] = []
        """The reported possible duplicates."""

    def close(self) -> None:
        self.connected.client.close()

    def deliver(
        self,
        action: str,
        source_event: Event | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        **context_fields: Any,
    ) -> Success:
        """Run one attempt and return its success. Raise its error otherwise."""
        [result] = self.deliver_all(
            action, [source_event or event(clock=self.clock)], params, seconds=seconds, **context_fields
        )
        if isinstance(result, Success):
            return result
        raise result

    def deliver_all(
        self,
        action: str,
        events: Sequence[Event],
        params: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        **context_fields: Any,
    ) -> list[Success | DeliveryError]:
        """Run one attempt of a batch, each event with its own context, and return a result per event."""
        context_fields = {
            "contact_cache": self.contact_cache,
            "report_duplicate": lambda first, second: self.duplicates.append((first, second)),
            **context_fields,
        }
        action_definition = self.connector.actions[action]
        deliveries = [
            (
                params or {},
                source_event,
                build_context(source_event, action_definition, now=self.clock.now(), **context_fields),
            )
            for source_event in events
        ]
        return self.connected.run_batch(action, deliveries, seconds=seconds)

    def requests(self) -> list[str]:
        """Return the requests to the provider since the last call, as `POST /path`."""
        requests = [f"{request.method} {request.path}" for request in self.sandbox.requests_to(self.name)]
        self.sandbox.clear_requests()
        return requests


def call_events(count: int, clock: Clock, start: int = 0) -> list[Event]:
    """Return events of calls with different contacts, each with a phone number and an email address."""
    return [
        event(
            "call.completed",
            {
                "conversationId": f"conv_{number}",
                "metadata.contactPhone": phone_number(number),
                "metadata.contactEmail": email_address(number),
                "metadata.contactName": f"Person {number}",
            },
            clock=clock,
        )
        for number in range(start, start + count)
    ]


def phone_number(number: int) -> str:
    """Return a valid phone number, different for each contact."""
    return f"+1212{5550000 + number:07}" if number < 10_000 else f"+1213{5550000 + number - 10_000:07}"


def email_address(number: int) -> str:
    """Return an email address, different for each contact."""
    return f"person{number}@example.com"


def note_text(note: str) -> str:
    """Return the text of a note in Pipedrive, as a user reads it."""
    return html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"<br />", "\n", note)))

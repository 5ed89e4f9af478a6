"""A CRM connection as the worker uses it: deliveries with what the connection remembers, against the sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from bridge.clock import Clock
from bridge.connector import Success
from bridge.errors import DeliveryError
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.testing import build_context, connect, event, load_connector


class Memory:
    """The identity map of a connection, in memory."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self.kept_for: dict[str, timedelta] = {}
        self.zones: dict[str, str] = {}
        self.asked = 0

    def get(self, keys: Iterable[str]) -> Mapping[str, str]:
        self.asked += 1
        return {key: self.ids[key] for key in keys if key in self.ids}

    def remember(self, ids: Mapping[str, str], ttl: timedelta = timedelta(days=7)) -> None:
        self.ids.update(ids)
        self.kept_for.update(dict.fromkeys(ids, ttl))

    def remember_zones(self, zones: Mapping[str, str]) -> None:
        self.zones.update(zones)

    def forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.ids.pop(key, None)


class Account:
    """One connection to one partner of the sandbox."""

    def __init__(self, name: str, sandbox: RunningSandbox, environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.sandbox = sandbox
        self.clock = sandbox.clock
        self.connector = load_connector(name)
        self.connected = connect(self.connector, {**sandbox.environment, **(environ or {})})
        self.memory = Memory()

    def close(self) -> None:
        self.connected.client.close()

    def deliver(
        self,
        action: str,
        about: Event | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        **facts: Any,
    ) -> Success:
        """One attempt; raises what it comes to when that is no success."""
        answer = self.deliver_all(
            action, [about or event(clock=self.clock)], params, seconds=seconds, **facts
        )[0]
        if isinstance(answer, Success):
            return answer
        raise answer

    def deliver_all(
        self,
        action: str,
        events: Sequence[Event],
        params: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = None,
        **facts: Any,
    ) -> list[Success | DeliveryError]:
        """One attempt at a batch, each event with its own context."""
        facts = {"contact_cache": self.memory, **facts}
        found = self.connector.actions[action]
        deliveries = [
            (params or {}, about, build_context(about, found, now=self.clock.now(), **facts))
            for about in events
        ]
        return self.connected.run_batch(action, deliveries, seconds=seconds)

    def requests(self) -> list[str]:
        """What was asked of the partner since the last time, as `POST /path`."""
        asked = [f"{one.method} {one.path}" for one in self.sandbox.requests_to(self.name)]
        self.sandbox.clear_requests()
        return asked


def calls(count: int, clock: Clock, start: int = 0) -> list[Event]:
    """Calls of different people, each with a phone and an e-mail."""
    return [
        event(
            "call.completed",
            {
                "conversationId": f"conv_{number}",
                "metadata.contactPhone": phone(number),
                "metadata.contactEmail": address(number),
                "metadata.contactName": f"Person {number}",
            },
            clock=clock,
        )
        for number in range(start, start + count)
    ]


def phone(number: int) -> str:
    """A valid number for each person."""
    return f"+1212{5550000 + number:07}" if number < 10_000 else f"+1213{5550000 + number - 10_000:07}"


def address(number: int) -> str:
    """An e-mail for each person."""
    return f"person{number}@example.com"

"""Details of conversations: what Heppu returns, and deliveries that wait for it before their first attempt."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.clock import uptime
from bridge.connector import Connector, ConnectorSettings, Event, Limits
from bridge.errors import (
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    TransientError,
)
from bridge.rules.counting import History
from bridge.rules.model import PlannedDelivery, Routing, Rules
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.store.connection_status import all_connections
from bridge.store.connections import pause, resume
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.operator_actions import cancel
from bridge.store.rerender import rerender_rule
from bridge.store.retention import prune
from bridge.store.schema import conversation_details
from bridge.testing import Clock, Connected, connect, event, load_connector
from bridge.worker.account import Account, Accounts
from bridge.worker.details_reader import DetailsReader
from bridge.worker.service import Worker
from tests.integration.engine import Engine
from tests.integration.test_sealing import use_keys

PHONE = "+12125550167"
SID = "CA00000000000000000000000000000001"
TURNS = [{"role": "assistant", "content": "Hello"}, {"role": "user", "text": "Hi, I lost my key"}]
TRANSCRIPT = "Agent: Hello\nContact: Hi, I lost my key"
heppu = load_connector("heppu")


# -- what Heppu returns


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[RunningSandbox]:
    with start_sandbox(clock=clock) as running:
        yield running


@pytest.fixture
def api(sandbox: RunningSandbox) -> Iterator[Connected]:
    with connect(heppu, sandbox.environment) as connected:
        yield connected


def read(api: Connected, name: str, clock: Clock, **changes: Any) -> dict[str, Any] | None:
    fields = {"metadata.contactPhone": PHONE, "conversationId": "conv_1"} | changes
    assert heppu.read_details is not None
    return heppu.read_details(api.client, event(name, fields, clock=clock))


def test_call_is_found_by_its_conversation(api: Connected, sandbox: RunningSandbox, clock: Clock) -> None:
    sandbox.heppu.add_call("conv_1", PHONE, transcript=TURNS, recordingUrl="https://heppu.example/1")
    details = read(api, "call.completed", clock)
    assert details is not None
    assert (details["transcript"], details["recordingUrl"]) == (TRANSCRIPT, "https://heppu.example/1")
    assert (details["status"], details["agent"]["name"]) == ("completed", "Nora at the front desk")


def test_call_with_an_id_of_its_own_is_found_by_its_sid(
    api: Connected, sandbox: RunningSandbox, clock: Clock
) -> None:
    sandbox.heppu.add_call("call_1", PHONE, sid="CA2", transcript="another call")
    sandbox.heppu.add_call("call_2", PHONE, sid=SID, transcript=TURNS)
    details = read(api, "call.completed", clock, twilioCallSid=SID)
    assert details is not None
    assert details["transcript"] == TRANSCRIPT


def test_call_without_a_sid_must_be_the_only_one_of_the_agent(
    api: Connected, sandbox: RunningSandbox, clock: Clock
) -> None:
    sandbox.heppu.add_call("call_1", PHONE, transcript=TURNS)
    sandbox.heppu.add_call("call_2", PHONE, agent_id="b7d1a1f4-52c0-4a0c-8a3e-0d1f2c3b4a59", transcript="")
    sandbox.heppu.add_call("call_3", "+12125550168", transcript="another person")
    details = read(api, "call.busy", clock)
    assert details is not None
    assert details["id"] == "call_1"
    clock.advance(hours=5)
    assert read(api, "call.busy", clock) is None
    sandbox.heppu.add_call("call_4", PHONE, transcript="one")
    sandbox.heppu.add_call("call_5", PHONE, transcript="or the other")
    assert read(api, "call.busy", clock) is None


def test_chat_is_found_by_its_conversation(api: Connected, sandbox: RunningSandbox, clock: Clock) -> None:
    assert read(api, "chat.completed", clock) is None
    sandbox.heppu.add_chat("conv_1", transcript=TURNS)
    details = read(api, "chat.completed", clock)
    assert details is not None
    assert details["transcript"] == TRANSCRIPT


@pytest.mark.parametrize("name", ["call.completed", "chat.completed"])
def test_sandbox_has_details_of_sent_samples_once_the_lag_is_over(
    api: Connected, sandbox: RunningSandbox, clock: Clock, name: str
) -> None:
    sandbox.fault("heppu", lag=60)
    sample = "Agent: Harbour Light, how can I help?\nContact: I would like to move my appointment."
    for transcript in (None, sample):
        details = read(api, name, clock, conversationId="conv_0123456789ab")
        assert details is not None
        assert details["transcript"] == transcript
        clock.advance(seconds=61)


@pytest.mark.parametrize(
    ("fields", "transcript", "recording"),
    [
        ({"transcript": "Agent: Hello"}, "Agent: Hello", None),
        ({"transcript": ["Hello", "", None, {"speaker": "Nora", "message": "Hi"}]}, "Hello\nNora: Hi", None),
        ({"transcript": {"messages": TURNS}}, TRANSCRIPT, None),
        ({"transcript": []}, None, None),
        ({"transcript": 5, "recording_url": "https://heppu.example/1"}, None, "https://heppu.example/1"),
        ({"recording": {"url": "https://heppu.example/1"}}, None, "https://heppu.example/1"),
        ({"recordings": [{"url": "https://heppu.example/1"}, {}]}, None, "https://heppu.example/1"),
        ({"recordingUrl": "javascript:alert(1)"}, None, None),
    ],
)
def test_forms_of_transcripts_and_recordings(
    api: Connected, sandbox: RunningSandbox, clock: Clock, fields: Any, transcript: Any, recording: Any
) -> None:
    sandbox.heppu.add_chat("conv_1", **fields)
    details = read(api, "chat.completed", clock)
    assert details is not None
    assert details["transcript"] == transcript
    assert details["recordingUrl"] == recording


# -- deliveries that wait

LATE = {"title": "{{ details.transcript | default('nothing') }}"}


@dataclass
class Heppu:
    """Heppu's API in memory: conversation -> details."""

    conversations: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    fail: DeliveryError | None = None
    calls: list[str] = field(default_factory=list)

    def connector(self) -> Connector:
        connector = Connector("heppu", settings=ConnectorSettings, limits=Limits(concurrency=1))

        @connector.conversation_details
        def details(client: Any, event: Event) -> Mapping[str, Any] | None:
            self.calls.append(event.conversation.id)
            if self.fail:
                raise self.fail
            return self.conversations.get(event.conversation.id)

        return connector


class Bridge:
    """An engine whose deliveries need details, one step at a time."""

    def __init__(self, database: Database) -> None:
        self.engine = Engine(database)
        self.heppu = Heppu()
        self.account = Account("heppu", self.heppu.connector(), ConnectorSettings())
        self.account.submit = lambda work: work()  # type: ignore[method-assign]
        accounts = Accounts({"heppu": self.account, "desk": self.engine.connection})
        self.reader = DetailsReader(database, accounts, self.rules)

    @staticmethod
    def rules() -> Rules:
        return Rules("", "rules")

    def deliver(self, name: str = "call.completed", late: Any = LATE, **changes: Any) -> str:
        """Store a delivery about a new event of `conv_1`."""
        planned = {key: changes.pop(key) for key in ("run_at", "expires_at") if key in changes}
        stored = self.engine.event(name, **{"conversationId": "conv_1"} | changes)
        return self.engine.deliver("record", stored, late=late, **planned)

    def run(self) -> None:
        """Claim the deliveries, read details and send."""
        self.engine.run_due()
        self.reader.poll(self.account)
        self.engine.run_due()

    def later(self, **time: float) -> None:
        self.engine.database.clock.advance(**time)
        self.run()

    def show(self, delivery_id: str) -> dict[str, Any]:
        return self.engine.show(delivery_id)

    def rows(self) -> list[Any]:
        with self.engine.database.read() as conn:
            return list(conn.execute(conversation_details.select()))

    @property
    def titles(self) -> list[str]:
        return list(self.engine.provider.records.values())


@pytest.fixture
def bridge(database: Database) -> Bridge:
    return Bridge(database)


def test_delivery_is_rendered_with_the_details_and_sent(bridge: Bridge) -> None:
    bridge.heppu.conversations["conv_1"] = {"transcript": TRANSCRIPT}
    delivery_id = bridge.deliver()
    bridge.engine.run_due()
    waiting = bridge.show(delivery_id)
    assert (waiting["state"], waiting["attempts"]) == ("pending", 0)
    assert waiting["detail"] == "details: waits for the conversation's details from heppu"
    bridge.run()
    shown = bridge.show(delivery_id)
    assert (shown["state"], shown["params"]) == ("succeeded", {"title": TRANSCRIPT})
    assert bridge.titles == [TRANSCRIPT]
    assert bridge.heppu.calls == ["conv_1"]


def test_details_are_read_once_per_conversation(bridge: Bridge) -> None:
    bridge.heppu.conversations["conv_1"] = {"transcript": TRANSCRIPT}
    now = bridge.engine.database.clock.now()
    first = bridge.deliver()
    second = bridge.deliver(webhookId="whd_2", run_at=now + timedelta(hours=1))
    bridge.run()
    assert [bridge.show(item)["state"] for item in (first, second)] == ["succeeded", "pending"]
    bridge.later(hours=1)
    assert bridge.show(second)["state"] == "succeeded"
    assert bridge.heppu.calls == ["conv_1"]


def test_later_event_reads_the_conversation_again(bridge: Bridge) -> None:
    bridge.heppu.conversations["conv_1"] = {"transcript": "a start"}
    bridge.deliver("chat.completed")
    bridge.run()
    bridge.heppu.conversations["conv_1"] = {"transcript": TRANSCRIPT}
    bridge.engine.database.clock.advance(minutes=1)
    bridge.deliver("chat.resolved")
    bridge.run()
    assert len(bridge.heppu.calls) == 2
    assert bridge.titles == [TRANSCRIPT]


def test_transcript_that_comes_minutes_later_is_waited_for(bridge: Bridge) -> None:
    delivery_id = bridge.deliver()
    bridge.run()
    assert bridge.show(delivery_id)["detail"] == "details: heppu has no transcript yet"
    bridge.heppu.conversations["conv_1"] = {"transcript": None}
    bridge.later(seconds=6)
    assert bridge.show(delivery_id)["state"] == "pending"
    bridge.heppu.conversations["conv_1"] = {"transcript": TRANSCRIPT}
    bridge.later(seconds=16)
    assert bridge.titles == [TRANSCRIPT]


def test_later_event_waits_for_its_transcript_as_long_as_the_first(bridge: Bridge) -> None:
    bridge.heppu.conversations["conv_1"] = {"transcript": "a start"}
    bridge.deliver("chat.completed")
    bridge.run()
    bridge.heppu.conversations["conv_1"] = {"transcript": None}
    bridge.engine.database.clock.advance(hours=1)
    resolved = bridge.deliver("chat.resolved")
    bridge.run()
    assert bridge.show(resolved)["detail"] == "details: heppu has no transcript yet"
    bridge.heppu.conversations["conv_1"] = {"transcript": TRANSCRIPT}
    bridge.later(minutes=1)
    assert bridge.titles == [TRANSCRIPT]


def test_transcript_that_never_comes_is_missing(bridge: Bridge) -> None:
    delivery_id = bridge.deliver()
    bridge.run()
    for _ in range(12):
        bridge.later(minutes=1)
    assert bridge.show(delivery_id)["state"] == "succeeded"
    assert bridge.titles == ["nothing"]
    assert 5 <= len(bridge.heppu.calls) <= 12


def test_call_that_nobody_answered_is_not_waited_for(bridge: Bridge) -> None:
    bridge.deliver("call.busy")
    bridge.run()
    assert bridge.titles == ["nothing"]


def test_missing_details_without_a_default_fail_the_delivery(bridge: Bridge) -> None:
    delivery_id = bridge.deliver("call.busy", {"title": "{{ details.transcript }}"})
    bridge.run()
    shown = bridge.show(delivery_id)
    assert (shown["state"], shown["reason"], shown["attempts"]) == ("failed", "render_error", 0)
    assert shown["detail"] == "`title`: details.transcript is missing"
    assert shown["needs_follow_up"]


@pytest.mark.parametrize(
    ("failure", "wait"),
    [
        (TransientError("no route"), 15),
        (OutcomeUnknown("no answer"), 15),
        (RateLimited("slow down", retry_after=timedelta(seconds=20)), 30),
    ],
)
def test_deliveries_wait_while_heppu_does_not_answer(bridge: Bridge, failure: Any, wait: float) -> None:
    bridge.heppu.fail = failure
    delivery_id, other = bridge.deliver(), bridge.engine.deliver("post")
    bridge.run()
    shown = bridge.show(delivery_id)
    assert (shown["state"], shown["attempts"]) == ("pending", 0)
    assert shown["detail"].startswith("details: no answer from heppu yet: ")
    assert bridge.show(other)["state"] == "succeeded"
    bridge.heppu.fail = None
    bridge.heppu.conversations["conv_1"] = {"transcript": TRANSCRIPT}
    bridge.later(seconds=wait)
    assert bridge.titles == [TRANSCRIPT]


def test_wrong_key_pauses_heppu_and_the_deliveries_say_so(bridge: Bridge) -> None:
    bridge.heppu.fail = AuthenticationError("Heppu answered 401 to GET /calls (invalid_api_key)")
    delivery_id = bridge.deliver()
    bridge.run()
    [paused] = [row for row in all_connections(bridge.engine.database) if row["name"] == "heppu"]
    assert (paused["pause_cause"], paused["alert_due"]) == ("auth", True)
    assert "no answer from heppu yet: Heppu answered 401" in bridge.show(delivery_id)["detail"]
    bridge.later(minutes=30)
    assert len(bridge.heppu.calls) == 1
    bridge.heppu.fail = None
    bridge.heppu.conversations["conv_1"] = {"transcript": TRANSCRIPT}
    resume(bridge.engine.database, "heppu", "ada")
    bridge.later(seconds=1)
    assert bridge.titles == [TRANSCRIPT]


def test_expired_delivery_says_what_it_waited_for(bridge: Bridge) -> None:
    bridge.heppu.fail = TransientError("no route")
    expires_at = bridge.engine.database.clock.now() + timedelta(minutes=20)
    delivery_id = bridge.deliver(expires_at=expires_at)
    bridge.run()
    for _ in range(5):
        bridge.later(minutes=5)
    shown = bridge.show(delivery_id)
    assert (shown["state"], shown["reason"]) == ("suppressed", "expired")
    assert "no answer from heppu yet: no route" in shown["detail"]


def test_paused_heppu_is_not_asked_and_delays_no_other_delivery(bridge: Bridge) -> None:
    pause(bridge.engine.database, "heppu", "maintenance", "ada")
    delivery_id, other = bridge.deliver(), bridge.engine.deliver("post")
    bridge.run()
    assert bridge.heppu.calls == []
    assert [bridge.show(item)["state"] for item in (delivery_id, other)] == ["pending", "succeeded"]


def test_worker_that_dies_while_reading_leaves_a_row_that_is_claimed_again(bridge: Bridge) -> None:
    bridge.heppu.conversations["conv_1"] = {"transcript": TRANSCRIPT}
    bridge.deliver()
    bridge.engine.run_due()
    claimed = bridge.reader.claim(bridge.account)
    assert claimed.query is not None
    bridge.run()
    assert bridge.heppu.calls == []
    bridge.later(seconds=31)
    assert bridge.titles == [TRANSCRIPT]


@pytest.mark.parametrize("problem", ["the details are larger than 1024 KiB", "Heppu answered 400"])
def test_delivery_goes_without_details_that_heppu_keeps_rejecting(bridge: Bridge, problem: str) -> None:
    bridge.heppu.conversations["conv_1"] = {"transcript": "x" * (1024 * 1024)}
    bridge.heppu.fail = PermanentError(problem) if "400" in problem else None
    delivery_id = bridge.deliver()
    bridge.run()
    assert bridge.show(delivery_id)["detail"] == f"details: heppu has no transcript yet: {problem}"
    for _ in range(12):
        bridge.later(minutes=1)
    shown = bridge.show(delivery_id)
    assert (shown["state"], shown["params"]) == ("succeeded", {"title": "nothing"})
    assert shown["options"]["notes"] == [problem]
    assert [row.value for row in bridge.rows()] == ["{}"]


def test_encrypted_details_are_erased_if_they_mention_the_address(bridge: Bridge) -> None:
    use_keys(bridge.engine.database, "a key for tests, long enough")
    bridge.heppu.conversations["conv_1"] = {"transcript": "call me at maya@example.com"}
    bridge.deliver(metadata={"contactPhone": PHONE})
    bridge.run()
    erase(bridge.engine.database, "ada", "anna@example.com", [b"key"])
    assert len(bridge.rows()) == 1
    erase(bridge.engine.database, "ada", "Maya@example.com", [b"key"])
    assert bridge.rows() == []


def test_details_are_pruned_and_erased(bridge: Bridge) -> None:
    database = bridge.engine.database
    bridge.heppu.conversations["conv_1"] = {"transcript": "call me at maya@example.com"}
    bridge.deliver(metadata={"contactPhone": PHONE})
    bridge.run()
    erase(database, "ada", "+12125550199", [b"key"])
    assert len(bridge.rows()) == 1
    erase(database, "ada", "maya@example.com", [b"key"])
    assert bridge.rows() == []
    bridge.deliver(webhookId="whd_2", metadata={"contactPhone": PHONE})
    bridge.run()
    erase(database, "ada", PHONE, [b"key"])
    assert bridge.rows() == []
    bridge.deliver(webhookId="whd_3")
    bridge.run()
    assert len(bridge.rows()) == 1
    database.clock.advance(hours=25)
    prune(database, timedelta(days=30), bridge.rules())
    assert bridge.rows() == []


def test_cancelled_delivery_needs_no_details(bridge: Bridge) -> None:
    delivery_id = bridge.deliver()
    bridge.engine.run_due()
    cancel(bridge.engine.database, "ada", [delivery_id])
    bridge.reader.poll(bridge.account)
    assert bridge.heppu.calls == []
    assert [row.run_at for row in bridge.rows()] == [None]


def test_waiting_delivery_is_rendered_again_from_the_changed_rule(bridge: Bridge) -> None:
    database = bridge.engine.database
    delivery_id = bridge.deliver()
    bridge.engine.run_due()
    changed = {"title": "Said: {{ details.transcript }}"}

    def route(event: Event, now: datetime, history: History) -> Routing:
        key = f"record {event.conversation.id}"
        planned = PlannedDelivery(
            "test", "rule", 0, "desk.record", "desk", {}, now, key, True, None, late=changed
        )
        return Routing((planned,), ())

    assert rerender_rule(database, "ada", "test", bridge.rules(), route).rendered == 1
    bridge.heppu.conversations["conv_1"] = {"transcript": TRANSCRIPT}
    bridge.later(minutes=6)
    assert bridge.show(delivery_id)["params"] == {"title": f"Said: {TRANSCRIPT}"}


def test_delivery_that_comes_during_the_request_waits_for_its_own_fields(bridge: Bridge) -> None:
    bridge.heppu.conversations["conv_1"] = recording = {"recordingUrl": "https://heppu.example/1"}
    bridge.deliver(late={"title": "{{ details.recordingUrl | default('nothing') }}"})
    bridge.engine.run_due()
    claimed = bridge.reader.claim(bridge.account)
    assert claimed.query is not None
    second = bridge.deliver(webhookId="whd_2")
    bridge.engine.run_due()
    bridge.reader.answer(bridge.account, claimed.query, uptime() + 5)
    bridge.engine.run_due()
    assert bridge.show(second)["detail"] == "details: heppu has no transcript yet"
    bridge.heppu.conversations["conv_1"] = recording | {"transcript": TRANSCRIPT}
    bridge.later(minutes=1)
    assert bridge.show(second)["params"] == {"title": TRANSCRIPT}


def test_running_queries_are_counted_exactly(bridge: Bridge) -> None:
    """A count that loses an update stops the reader once it has lost four."""

    class Preempted(Counter[str]):
        """Another thread finishes a query between the read and the write of the dispatcher."""

        def get(self, key: str, default: Any = None) -> Any:
            value = super().get(key, default)
            if occupied:
                occupied.clear()
                finish()
            return value

        def __getitem__(self, key: str) -> Any:
            return self.get(key, 0)

    def finish() -> None:
        if waiting:
            threads.append(threading.Thread(target=waiting.pop()))
            threads[-1].start()
            threads[-1].join(timeout=0.3)  # it waits for the lock

    occupied: list[int] = []
    waiting: list[Callable[[], None]] = []
    threads: list[threading.Thread] = []
    bridge.account.occupy = occupied.append  # type: ignore[method-assign]
    bridge.account.submit = waiting.append  # type: ignore[method-assign]
    bridge.reader._running = Preempted()
    for number in range(2):
        bridge.deliver(conversationId=f"conv_{number}", webhookId=f"whd_{number}")
        bridge.engine.run_due()
        bridge.reader.poll(bridge.account)
    finish()
    for thread in threads:
        thread.join(timeout=10)
    assert len(threads) == 2
    assert dict(bridge.reader._running) == {"heppu": 0}


def test_worker_reads_details_in_the_threads_of_the_account(bridge: Bridge) -> None:
    database, current = bridge.engine.database, bridge.rules()
    published: queue.SimpleQueue[frozenset[str]] = queue.SimpleQueue()
    file = SimpleNamespace(current=current, reload_if_changed=lambda: False)
    accounts = {"heppu": Account("heppu", bridge.heppu.connector(), ConnectorSettings())}
    accounts["desk"] = bridge.engine.connection
    bridge.heppu.conversations["conv_1"] = {"transcript": TRANSCRIPT}
    worker = Worker(database, cast(Any, file), Accounts(accounts), bridge.engine.attempts)
    delivery_id = bridge.deliver()
    database.listeners.append(published.put)
    worker.start()
    try:
        while bridge.show(delivery_id)["state"] != "succeeded":
            published.get(timeout=10)  # every step of the worker wakes the next one
    finally:
        worker.stop()
    assert bridge.titles == [TRANSCRIPT]

"""Alerts about the service itself: when each comes, that it comes once, and that its end is told."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import dataclass
from typing import Any, cast

import pytest
from sqlalchemy import insert, update

from bridge.clock import Clock
from bridge.connector.discovery import Registry
from bridge.errors import OutcomeUnknown, StoreUnavailable
from bridge.ids import new_id
from bridge.rules.load import load_or_raise
from bridge.signing import read_event
from bridge.store import schema
from bridge.store.connections import pause, register_accounts, resume
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.workers import record_heartbeat
from bridge.worker.service_watch import ServiceWatch
from bridge.worker.worker_exits import WorkerExits
from tests.integration.dashboard_site import FixedRules
from tests.integration.engine import Engine, raising

RULES = """
version: 1
alerts:
  do: [{use: slack.post}]
  backlog_after: 20m
  no_events_after: 2h
rules:
  - name: text
    when: call.busy
    do: [{use: slack.post, with: {text: busy}}]
"""


@dataclass
class Team:
    """What the team is told about a service."""

    database: Database
    watch: ServiceWatch
    rules: FixedRules
    exits: WorkerExits
    has_worker: bool = True

    @property
    def engine(self) -> Engine:
        return Engine(self.database)

    def deliver(self) -> str:
        """Return the ID of a due delivery of an event that was routed."""
        delivery_id = self.engine.deliver("send")
        with self.database.write() as conn:
            conn.execute(update(schema.events).values(routed_at=self.database.clock.now()))
        return delivery_id

    def finish(self, *conditions: Any) -> None:
        """Mark deliveries as sent."""
        with self.database.write() as conn:
            conn.execute(update(schema.deliveries).where(*conditions).values(state="succeeded"))

    def alerts(self) -> list[str]:
        table = schema.deliveries
        query = table.select().where(table.c.trigger == "alert").order_by(table.c.created_at, table.c.id)
        with self.database.read() as conn:
            return [json.loads(row.params)["text"] for row in conn.execute(query)]

    def check(self, **later: float) -> list[str]:
        """Return the alerts after two checks, a minute apart, the first of which is `later` from now."""
        before = len(self.alerts())
        self.database.clock.advance(**later) if later else None
        self.watch.check()
        self.database.clock.advance(seconds=60)
        if self.has_worker:
            record_heartbeat(self.database, "worker", "1.0")
        self.watch.check()
        self.finish(schema.deliveries.c.trigger == "alert")
        return self.alerts()[before:]


@pytest.fixture
def team(database: Database) -> Team:
    register_accounts(database, {"desk": "a", "slack": "b"})
    rules, exits = FixedRules(load_or_raise(RULES, path="rules.yaml", registry=Registry())), WorkerExits()
    return Team(database, ServiceWatch(database, cast(Any, rules), exits), rules, exits)


def receive(database: Database, clock: Clock, count: int = 1) -> None:
    events = []
    for _ in range(count):
        body = b'{"event": "call.busy", "webhookId": "%s"}' % new_id("hook").encode()
        events.append(IncomingEvent(read_event(body, clock.now()), body))
    assert set(store_events(database, events)) == {"stored"}
    with database.write() as conn:
        conn.execute(update(schema.events).values(routed_at=clock.now()))


def test_healthy_service_alerts_nothing(team: Team) -> None:
    team.deliver()
    assert team.check(minutes=10) == []


def test_backlog_is_alerted_once_and_its_end_is_told(team: Team, clock: Clock) -> None:
    delivery_id = team.deliver()
    clock.advance(minutes=20)
    [message] = team.check()
    assert message == (
        "1 due delivery is waiting over desk, the oldest for 21 min; add workers, or raise DESK_CONCURRENCY if the "
        "provider allows it"
    )
    assert [team.check(minutes=15) for _ in range(3)] == [[], [], []], "one alert while it lasts"
    team.finish(schema.deliveries.c.id == delivery_id)
    [message] = team.check()
    assert message.startswith("recovered: due deliveries over desk no longer wait for a worker, after 4")
    assert team.check(minutes=30) == []


def test_backlog_without_a_worker_says_so(team: Team) -> None:
    team.has_worker = False
    team.deliver()
    [message] = team.check(minutes=30)
    assert message.endswith("no worker is running: start `bridge serve` or `bridge worker`")


def test_paused_connection_is_no_backlog(team: Team) -> None:
    team.deliver()
    pause(team.database, "desk", "holidays", "ada")
    assert team.check(hours=3) == []
    resume(team.database, "desk", "ada")
    assert len(team.check()) == 1


def test_problem_that_one_check_sees_is_not_alerted(team: Team, clock: Clock) -> None:
    delivery_id = team.deliver()
    clock.advance(hours=1)
    team.watch.check()
    team.finish(schema.deliveries.c.id == delivery_id)
    assert team.check() == []


def test_problem_that_comes_and_goes_is_alerted_every_ten_minutes_at_most(team: Team) -> None:
    messages: list[str] = []
    for number in range(30):
        team.rules.load_error = "rules.yaml:3: unknown key `wen`" if number % 3 else None
        messages += team.check()
    times = 2 * 30 / 10  # minutes
    assert 2 <= len(messages) <= times
    assert "rules.yaml:3: unknown key `wen`; run `bridge check`" in messages[0]
    assert "recovered" in messages[1]


def test_lasting_problem_is_alerted_again_after_a_day(team: Team) -> None:
    team.rules.load_error = "rules.yaml:3: unknown key"
    assert len(team.check()) == 1
    assert team.check(hours=23) == []
    assert len(team.check(hours=1)) == 1


def test_unrouted_events_are_alerted(team: Team, clock: Clock) -> None:
    receive(team.database, clock, 3)
    with team.database.write() as conn:
        conn.execute(update(schema.events).values(routed_at=None))
    [message] = team.check(minutes=25)
    assert message.startswith("3 events have not been routed, the oldest for 26 min")


def test_open_circuit_is_alerted_again_after_a_while(team: Team, clock: Clock) -> None:
    row = {"id": new_id("pau"), "connection": "desk", "cause": "circuit_open", "started_at": clock.now()}
    with team.database.write() as conn:
        conn.execute(insert(schema.connection_pauses), row)
    assert team.check(minutes=10) == []
    [message] = team.check(minutes=5)
    assert message.startswith("the circuit breaker of desk has been open for 17 min; its deliveries wait")
    clock.advance(minutes=10)
    with team.database.write() as conn:
        conn.execute(update(schema.connection_pauses).values(ended_at=clock.now()))
    assert team.check() == ["recovered: the circuit breaker of desk is closed, after 10 min"]


def test_review_that_waits_for_a_day_is_reminded_of(team: Team, clock: Clock) -> None:
    engine = team.engine
    engine.provider.before = raising(OutcomeUnknown("no answer"))
    engine.deliver("mail")
    engine.run_due()
    with team.database.write() as conn:
        conn.execute(update(schema.events).values(routed_at=clock.now()))
    assert team.check(hours=20) == []
    [message] = team.check(hours=5)
    assert message.startswith("1 delivery has needed review for up to 1 d 1 h: decide with `bridge resolve`")


def test_silence_of_heppu_is_alerted_if_it_is_unusual(team: Team, clock: Clock) -> None:
    """Every day at the same hour there are events; then none come."""
    assert team.check() == [], "without any event, nothing is usual"
    for _ in range(8):
        receive(team.database, clock, 6)
        clock.advance(hours=24)
    clock.advance(minutes=30)
    assert team.check() == [], "they may come a little later than a week ago"
    [message] = team.check(minutes=45)
    assert message.startswith(
        "Heppu has sent no events for 1 d 1 h, which is unusual for this time; `bridge check"
    )
    assert team.check(hours=5) == [], "it is usual for this time, but no event has come"
    receive(team.database, clock)
    assert team.check() == ["recovered: Heppu sends events again, after 5 h 1 min"]


def test_silence_in_the_first_week_is_not_alerted(team: Team, clock: Clock) -> None:
    for _ in range(6):
        receive(team.database, clock, 6)
        clock.advance(hours=24)
    assert team.check(minutes=75) == [], "there is nothing to compare with"


def test_silence_at_night_is_usual(team: Team, clock: Clock) -> None:
    for _ in range(15):
        receive(team.database, clock, 6)
        clock.advance(hours=24)
    receive(team.database, clock, 6)
    assert team.check(hours=12) == []


def test_nearly_full_disk_is_alerted(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    free = [400_000_000]
    monkeypatch.setattr("bridge.worker.service_watch.shutil.disk_usage", lambda _: usage(10**10, 0, free[0]))
    expected = 0 if team.database.file is None else 1
    alerts = team.check()
    assert len(alerts) == expected, "PostgreSQL has a disk of its own"
    if expected:
        assert alerts[0].startswith("the disk of the database has 0.4 GB left (")
        free[0] = 2 * 10**9
        [message] = team.check(minutes=10)
        assert "has enough space again" in message


def test_crash_loop_of_the_worker_is_alerted(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        team.exits.note()
    assert team.check() == []
    team.exits.note()
    [message] = team.check()
    assert "exited 3 times in 10 minutes; events are stored, and deliveries wait" in message
    uptime = team.watch.check.__globals__["uptime"]
    monkeypatch.setattr("bridge.worker.worker_exits.uptime", lambda: uptime() + 900)
    [message] = team.check(minutes=10)
    assert "is running steadily again" in message


def test_full_disk_is_alerted_after_it_with_the_number_of_refused_requests(
    team: Team, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    health, at = team.database.write_health, [1000.0]
    for module in ("bridge.store.write_health", "bridge.worker.service_watch"):
        monkeypatch.setattr(f"{module}.uptime", lambda: at[0])

    def later(seconds: float) -> None:
        clock.advance(seconds=seconds)
        at[0] += seconds

    started_at = clock.now()
    health.note_failure(StoreUnavailable("no space", kind="disk_full"), 1000)
    for _ in range(831):
        health.note_refused()
    later(700)
    health.note_failure(StoreUnavailable("no space", kind="disk_full"), 1000)
    later(20)
    health.note_success(1000)
    ended_at = clock.now()
    later(30)
    [message] = team.check()
    assert message == (
        f"the disk of the database was full from {started_at:%H:%M} to {ended_at:%H:%M} UTC; 831 requests were "
        "answered 503, and Heppu sends them again for a while: `bridge heppu reconcile` finds what is missing"
    )
    for _ in range(2):  # the next ones are told together
        health.note_failure(StoreUnavailable("no space", kind="disk_full"), 1000)
        health.note_refused()
        later(5)
        health.note_success(1000)
        assert team.check() == []
        later(60)
    [message] = team.check(minutes=10)
    assert "2 requests were answered 503" in message


def test_outage_without_refused_requests_is_not_alerted(team: Team) -> None:
    health = team.database.write_health
    health.note_failure(StoreUnavailable("gone"), 0)
    health.note_success(0)
    assert team.check() == []


def test_several_processes_alert_once(team: Team) -> None:
    other = ServiceWatch(team.database, cast(Any, team.rules))
    team.deliver()
    team.database.clock.advance(hours=1)
    other.check()
    assert len(team.check()) == 1
    other.check()
    assert len(team.alerts()) == 1


def test_process_does_not_end_the_problem_of_another_host(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.rules.load_error = "rules.yaml:3: unknown key"
    assert len(team.check()) == 1
    monkeypatch.setattr("socket.gethostname", lambda: "another-host")
    other = ServiceWatch(team.database, cast(Any, FixedRules(team.rules.current)))
    team.database.clock.advance(minutes=20)
    other.check()
    assert len(team.alerts()) == 1


def watch_beside(team: Team, *, only_receives: bool = False) -> ServiceWatch:
    """Return the watch of another process on the same host, which has no problem."""
    rules = FixedRules(team.rules.current)
    return ServiceWatch(team.database, cast(Any, rules), only_receives=only_receives)


def test_process_does_not_end_the_problem_of_another_one_on_its_host(team: Team) -> None:
    """Two servers on a machine have each a worker and settings of their own."""
    other = watch_beside(team)
    team.rules.load_error = "SLACK_WEBHOOK_URL is not set"
    assert len(team.check()) == 1
    for _ in range(3):
        team.database.clock.advance(minutes=20)
        other.check()
        assert team.check() == []
    team.rules.load_error = None
    [message] = team.check()
    assert message.startswith("recovered")


def test_restarted_process_says_that_its_problem_is_over(team: Team) -> None:
    team.rules.load_error = "SLACK_WEBHOOK_URL is not set"
    assert len(team.check()) == 1
    team.database.clock.advance(minutes=20)
    watch_beside(team).check()
    assert team.alerts()[-1].startswith("recovered")


def test_receiver_does_not_end_the_problem_of_a_worker_on_its_host(team: Team) -> None:
    """It neither checks the settings of connections nor has a worker, even if it is restarted."""
    team.rules.load_error = "SLACK_WEBHOOK_URL is not set"
    assert len(team.check()) == 1
    team.database.clock.advance(minutes=20)
    watch_beside(team, only_receives=True).check()
    assert len(team.alerts()) == 1


def test_problem_of_a_host_that_two_of_its_processes_see_is_alerted_once(team: Team) -> None:
    receiver = ServiceWatch(team.database, cast(Any, team.rules), only_receives=True)
    team.rules.load_error = "rules.yaml:3: unknown key"
    receiver.check()
    assert len(team.check()) == 1
    receiver.check()
    assert len(team.alerts()) == 1


def test_settings_can_switch_an_alert_off(team: Team) -> None:
    text = RULES.replace("20m", "never")
    team.rules.current = load_or_raise(text, path="rules.yaml", registry=Registry())
    team.deliver()
    assert team.check(days=9) == []


def test_file_without_alerts_needs_no_settings(team: Team) -> None:
    text = RULES.replace(RULES[RULES.index("alerts:") : RULES.index("rules:")], "")
    team.rules.current = load_or_raise(text, path="rules.yaml", registry=Registry())
    team.rules.load_error = "broken"
    assert team.check(days=1) == []

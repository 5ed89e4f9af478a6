"""Pause history, attempts per period and repeated attempts: what remains visible after an outage."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import cycle
from typing import Any

from sqlalchemy import select

from bridge.errors import AuthenticationError, OutcomeUnknown, PermanentError, RateLimited, TransientError
from bridge.store import schema
from bridge.store.connection_status import connection_statuses
from bridge.store.connections import pause, register_accounts, resume
from bridge.store.delivery_list import list_deliveries
from bridge.store.pause_all import pause_all, resume_all
from bridge.store.pause_history import MIN_RATE_LIMIT, note_drained
from bridge.store.results import record_results
from bridge.store.timeline import timeline
from tests.integration.engine import Engine, raising


def pauses(engine: Engine) -> list[Any]:
    table = schema.connection_pauses
    with engine.database.read() as conn:
        return list(conn.execute(select(table).order_by(table.c.started_at)))


def down() -> None:
    raise TransientError("HubSpot answered 503", reason="server_error")


def other(number: int) -> dict[str, str]:
    return {"contactPhone": f"+1212555{3000 + number}"}


def outage(engine: Engine, deliveries: int = 8, minutes: float = 2) -> list[str]:
    """Let the provider fail for a while; return the deliveries that waited."""
    ids = [engine.deliver("post", engine.event(metadata=other(number))) for number in range(deliveries)]
    engine.provider.before = down
    engine.run_for(minutes=minutes)
    return ids


def test_an_outage_is_one_pause_from_opening_to_closing(engine: Engine) -> None:
    outage(engine)
    [pause_] = pauses(engine)
    assert (pause_.cause, pause_.ended_at, pause_.connection) == ("circuit_open", None, "desk")
    assert pause_.reason.endswith("HubSpot answered 503")
    engine.provider.before = None
    engine.run_for(minutes=1)
    [pause_] = pauses(engine)
    assert pause_.ended_at - pause_.started_at > timedelta(minutes=1)
    assert 0 < pause_.waited <= 8
    assert pause_.drained_at is None
    engine.run_for(hours=2)
    assert engine.states() == {"succeeded": 8}
    note_drained(engine.database)
    assert pauses(engine)[0].drained_at > pause_.ended_at


def test_waiting_deliveries_keep_a_pause_undrained(engine: Engine) -> None:
    outage(engine)
    resume(engine.database, "desk", "ada")
    note_drained(engine.database)
    [pause_] = pauses(engine)
    assert pause_.ended_at is not None
    assert pause_.drained_at is None


def test_an_outage_that_returns_at_once_continues(engine: Engine) -> None:
    outage(engine, minutes=1)
    engine.provider.before = None
    engine.database.clock.advance(seconds=10)
    assert engine.step() == 1
    assert pauses(engine)[0].ended_at is not None
    engine.provider.before = down
    engine.run_for(minutes=1)
    assert [item.ended_at for item in pauses(engine)] == [None]


def test_short_rate_limits_are_not_recorded_and_long_ones_are_joined(engine: Engine) -> None:
    def limit(seconds: float) -> None:
        raise RateLimited("429", retry_after=timedelta(seconds=seconds))

    engine.deliver("post")
    engine.provider.before = lambda: limit(1)
    for _ in range(5):
        engine.step()
        engine.database.clock.advance(seconds=2)
    assert pauses(engine) == []
    engine.provider.before = lambda: limit(MIN_RATE_LIMIT.total_seconds() + 5)
    for _ in range(5):
        engine.step()
        engine.database.clock.advance(seconds=20)
    [pause_] = pauses(engine)
    assert pause_.cause == "rate_limit"


def test_pauses_of_operators_name_them(engine: Engine) -> None:
    register_accounts(engine.database, {"desk": "a"})
    engine.deliver("post")
    pause(engine.database, "desk", "CRM-418", "ada")
    pause(engine.database, "desk", "CRM-419", "grace")
    [pause_] = pauses(engine)
    assert (pause_.cause, pause_.reason, pause_.actor) == ("operator", "CRM-419", "grace")
    pause_all(engine.database, "wrong campaign", "ada")
    resume(engine.database, "desk", "ada")
    resume_all(engine.database, "ada")
    by_name = {item.connection: item for item in pauses(engine)}
    assert by_name["*"].reason == "wrong campaign"
    assert {item.waited for item in by_name.values()} == {1}
    assert all(item.ended_at for item in by_name.values())
    assert all(status.pause is None for status in connection_statuses(engine.database))


def test_new_settings_end_the_recorded_pause(engine: Engine) -> None:
    register_accounts(engine.database, {"desk": "a"})
    engine.deliver("post")

    engine.provider.before = raising(AuthenticationError("401"))
    engine.step()
    assert pauses(engine)[0].cause == "auth"
    register_accounts(engine.database, {"desk": "b"})
    assert pauses(engine)[0].ended_at is not None


def test_probes_of_an_outage_share_one_attempt_row(engine: Engine) -> None:
    ids = outage(engine, deliveries=6, minutes=4)
    table = schema.attempts
    with engine.database.read() as conn:
        rows = list(conn.execute(select(table)))
    [open_] = pauses(engine)
    probes = [row for row in rows if row.started_at >= open_.started_at]
    assert len(probes) <= len(ids)
    repeats = sum(row.repeats for row in probes)
    assert repeats > 5
    assert len(rows) + repeats == len(engine.provider.calls)
    described = [text for delivery in ids for _, text in timeline(engine.show(delivery) | {"audit": []})]
    repeated = next(text for text in described if "attempts until" in text)
    assert repeated.endswith("failed: server_error: HubSpot answered 503")
    engine.provider.before = None
    engine.run_for(hours=2)
    assert engine.states() == {"succeeded": 6}
    assert engine.show(ids[0])["attempt_history"][-1]["outcome"] == "succeeded"


def test_unknown_outcomes_and_killed_probes_keep_their_rows(engine: Engine) -> None:
    [delivery, *_] = outage(engine, deliveries=5, minutes=1)

    before = {item["id"]: len(engine.show(item["id"])["attempt_history"]) for item in _deliveries(engine)}
    engine.provider.before = raising(OutcomeUnknown("no answer", reason="timeout"))
    engine.database.clock.advance(hours=1)
    probe = engine.claim()[0][0].delivery.id
    assert len(engine.show(probe)["attempt_history"]) == before[probe] + 1, (
        "recorded before its request leaves"
    )
    engine.database.clock.advance(minutes=5)
    assert engine.recover_expired() == 1  # the process was killed
    assert engine.show(probe)["attempt_history"][-1]["outcome"] == "outcome_unknown"
    assert len(engine.show(probe)["attempt_history"]) == before[probe] + 1
    engine.database.clock.advance(hours=1)
    for _ in range(3):
        engine.step()
        engine.database.clock.advance(hours=1)
    unknown = [
        row
        for item in _deliveries(engine)
        for row in engine.show(item["id"])["attempt_history"]
        if row["outcome"] == "outcome_unknown"
    ]
    assert len(unknown) == 4
    assert {row["repeats"] for row in unknown} == {0}
    assert delivery in before


def test_probes_that_fail_in_turn_in_two_ways_share_two_rows(engine: Engine) -> None:
    """A provider behind a load balancer: one backend refuses connections, the other answers 503."""
    outage(engine, deliveries=5, minutes=1)
    failures = cycle(
        [TransientError("connection refused", reason="network"), TransientError("503", reason="server_error")]
    )

    def fail() -> None:
        raise next(failures)

    engine.provider.before = fail
    engine.run_for(minutes=10)
    [open_] = pauses(engine)
    table = schema.attempts
    with engine.database.read() as conn:
        probes = list(conn.execute(select(table).where(table.c.started_at >= open_.started_at)))
        total = len(list(conn.execute(select(table)))) + sum(row.repeats for row in probes)
    assert total == len(engine.provider.calls)
    per_result = Counter((row.delivery_id, row.reason) for row in probes)
    assert set(per_result.values()) == {1}, per_result


def test_two_workers_share_the_row_of_a_delivery_also_if_one_was_killed(engine: Engine) -> None:
    """Kill -9 between the claim of a probe and its result, and a second worker that goes on."""
    ids = outage(engine, deliveries=1, minutes=0)
    while not pauses(engine):
        engine.deliver("post", engine.event(metadata=other(50 + len(engine.provider.calls))))
        engine.step()
    engine.run_for(minutes=3)
    engine.database.clock.advance(minutes=1)
    killed = engine.claim()[0][0]
    shown = engine.show(killed.delivery.id)["attempt_history"]
    assert shown[-1]["outcome"] is None
    engine.database.clock.advance(minutes=5)
    second = Engine(engine.database, engine.provider, worker_id="two")
    assert second.recover_expired() == 1
    second.run_for(minutes=30)
    record_results(
        engine.database, engine.attempt([killed])
    )  # it was only suspended, and its result comes late
    history = engine.show(killed.delivery.id)["attempt_history"]
    tokens = [row["fencing_token"] for row in history]
    assert tokens == sorted(set(tokens))
    assert killed.fencing_token in tokens, "the attempt whose outcome was unknown keeps its row"
    made = sum(1 + row["repeats"] for row in history)
    assert made == engine.show(killed.delivery.id)["fencing_token"], "every claim is counted once"
    assert ids


def _deliveries(engine: Engine) -> list[dict[str, Any]]:
    return list(list_deliveries(engine.database, limit=100).items)


def test_attempts_are_added_up_by_period(engine: Engine) -> None:
    for number, problem in enumerate([None, None, raising(PermanentError("no such number")), down]):
        engine.deliver("post", engine.event(metadata=other(number)))
        engine.provider.before = problem
        engine.step()
    with engine.database.read() as conn:
        rows = list(conn.execute(select(schema.connection_stats)))
    assert {row.connection for row in rows} == {"desk"}
    assert sum(row.succeeded for row in rows) == 2
    assert (sum(row.failed for row in rows), sum(row.rejected for row in rows)) == (1, 1)
    assert all(row.started_at.minute % 5 == 0 and row.started_at.second == 0 for row in rows)

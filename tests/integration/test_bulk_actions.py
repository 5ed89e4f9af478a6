"""Actions on many deliveries, on both databases: previews, small transactions, audit entries, and the state seen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event as engine_event

from bridge.errors import OutcomeUnknown, PermanentError, TransientError
from bridge.lifecycle import StopScope
from bridge.store import batches, bulk_actions
from bridge.store.audit_log import list_audit_entries
from bridge.store.batches import SelectionChanged
from bridge.store.bulk_actions import TooManyDeliveries, change_all, preview_bulk
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.operator_actions import dismiss, resolve, retry, seen_version
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.store.pause_all import pause_all, resume_all
from tests.integration.engine import Engine

FAILED = DeliveryFilter(states=("failed",))


def failed(engine: Engine, number: int, use: str = "send", error: Exception | None = None) -> list[str]:
    """Store deliveries whose only attempt fails; return their IDs, newest first."""

    def fail() -> None:
        raise error or PermanentError("no such number")

    ids = [
        engine.deliver(use, engine.event(metadata={"contactPhone": f"+1310555{1000 + index}"}))
        for index in range(number)
    ]
    engine.provider.before = fail
    engine.run_due()
    engine.provider.before = None
    return ids[::-1]


def states(engine: Engine) -> list[str]:
    return sorted(item["state"] for item in list_deliveries(engine.database).items)


def test_preview_says_how_many_to_whom_and_what_is_not_possible(engine: Engine) -> None:
    ids = [*failed(engine, 6), *failed(engine, 1, "record")]
    unknown = engine.deliver("post")
    preview = preview_bulk(engine.database, "retry", DeliveryFilter(ids=[*ids, unknown, "dlv_0"]))
    assert (preview.possible, preview.total, preview.rejected) == (7, 9, 7)
    assert preview.effects.text == "6 text messages, 0 emails, 1 desk.record"
    assert (preview.connections, len(preview.first)) == ({"desk": 7}, 5)
    assert preview.obstacles == {"it is pending": 1, "there is no such delivery": 1}
    assert preview.not_possible[0][1].startswith("it is pending; only failed and retrying deliveries")
    by_filter = preview_bulk(engine.database, "retry", DeliveryFilter())
    assert (by_filter.possible, by_filter.obstacles) == (7, {}), "a filter takes what the action can change"
    assert "+1310" not in str(by_filter.to_json())


def test_retry_of_all_that_match_is_one_audit_entry(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_SMALLEST", 2)
    ids = failed(engine, 5)
    result = change_all(engine.database, "ada", "retry", FAILED, expected=5)
    assert (result.done, states(engine)) == (5, ["pending"] * 5)
    (entry,) = list_audit_entries(engine.database)
    assert (entry["id"], entry["actor"], entry["action"], entry["target"]) == (
        result.audit_id, "ada", "retry", "deliveries",
    )  # fmt: skip
    assert entry["detail"] == {"states": ["failed"], "matched": 5, "done": 5}
    (part,) = list_audit_entries(engine.database, target=ids[0])
    assert (part["actor"], part["part_of"]) == ("ada", result.audit_id)
    engine.run_due()
    assert len(engine.provider.messages) == 5


def test_nothing_is_done_if_another_number_matches_than_was_confirmed(engine: Engine) -> None:
    failed(engine, 2)
    with pytest.raises(SelectionChanged, match="2 deliveries match now, and not 1 as before"):
        change_all(engine.database, "ada", "retry", FAILED, expected=1)
    assert states(engine) == ["failed", "failed"]
    assert change_all(engine.database, "ada", "retry", DeliveryFilter(rule="none"), expected=0).done == 0
    assert list_audit_entries(engine.database) == []


def test_action_on_too_many_deliveries_asks_for_a_narrower_filter(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_actions, "MAX_DELIVERIES", 1)
    failed(engine, 2)
    for act in (preview_bulk, lambda *args: change_all(args[0], "ada", *args[1:])):
        with pytest.raises(TooManyDeliveries, match="narrow the filter"):
            act(engine.database, "retry", FAILED)


def test_cancel_by_filter_leaves_reviews_unless_they_are_named(engine: Engine) -> None:
    engine.provider.lookup_works = False
    review = failed(engine, 1, error=OutcomeUnknown("no answer"))[0]
    engine.run_for(seconds=30)
    waiting = failed(engine, 1, error=TransientError("502"))[0]
    assert engine.show(review)["state"] == "needs_review"
    assert change_all(engine.database, "ada", "cancel", DeliveryFilter()).done == 1
    assert engine.show(waiting)["state"] == "cancelled"
    reviews = DeliveryFilter(states=("needs_review",))
    assert change_all(engine.database, "ada", "cancel", reviews).results[0].text == (
        "cancelled; it may have been sent before"
    )


def test_dismissed_failures_leave_the_list_until_undone_or_retried(engine: Engine) -> None:
    database, open_failures = engine.database, DeliveryFilter(states=("failed",), not_dismissed=True)
    first, second = failed(engine, 2)
    assert change_all(database, "ada", "dismiss", DeliveryFilter(rule="test"), expected=2).done == 2
    assert list_deliveries(database, open_failures).items == []
    assert dismiss(database, "ada", [first], undo=True)[0].text == "no longer dismissed"
    assert [item["id"] for item in list_deliveries(database, open_failures).items] == [first]
    retry(database, "ada", [second])
    assert engine.show(second)["dismissed_at"] is None
    assert (
        dismiss(database, "ada", [second])[0].text == "it is pending; only failed deliveries can be dismissed"
    )


@pytest.mark.parametrize("resolution", ["delivered", "retry", "discard"])
def test_review_that_somebody_else_has_decided_is_left_alone(engine: Engine, resolution: Any) -> None:
    engine.provider.lookup_works = False
    review = failed(engine, 1, error=OutcomeUnknown("no answer"))[0]
    engine.run_for(seconds=30)
    seen = {review: seen_version(engine.show(review))}
    assert resolve(engine.database, "ada", review, "discard", seen=seen).done
    result = resolve(engine.database, "grace", review, resolution, seen=seen)
    assert not result.done
    assert result.text == "it has changed since the page was opened: it is cancelled now (discarded by ada)"


def test_delivery_that_failed_again_is_not_what_was_seen(engine: Engine) -> None:
    (delivery_id,) = failed(engine, 1)
    seen = {delivery_id: seen_version(engine.show(delivery_id))}
    retry(engine.database, "ada", [delivery_id], seen)
    engine.provider.before = lambda: (_ for _ in ()).throw(PermanentError("no"))
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "failed"
    assert not retry(engine.database, "grace", [delivery_id], seen)[0].done


def test_an_action_is_many_small_transactions(engine: Engine) -> None:
    number = 2 * batches.LARGEST + 1
    for _ in range(number):
        engine.deliver("post", engine.event())
    commits: list[int] = []
    engine_event.listen(engine.database.engine, "commit", lambda _: commits.append(1))
    assert change_all(engine.database, "ada", "cancel", DeliveryFilter()).done == number
    assert len(commits) >= 3


def test_filter_leaves_alone_what_has_left_its_states(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = engine.deliver("send")
    select = bulk_actions.select_deliveries

    def select_and_send(*args: Any) -> list[str]:
        ids = select(*args)
        engine.provider.lookup_works = False
        engine.provider.before = lambda: (_ for _ in ()).throw(OutcomeUnknown("no answer"))
        engine.run_for(seconds=30)
        return ids

    monkeypatch.setattr(bulk_actions, "select_deliveries", select_and_send)
    result = change_all(engine.database, "ada", "cancel", DeliveryFilter(), expected=1)
    assert result.done == 0
    assert "it has changed" in result.results[0].text
    assert engine.show(waiting)["state"] == "needs_review", (
        "a message that may have been sent needs a decision"
    )


def test_process_that_dies_leaves_an_entry_about_what_it_did(engine: Engine) -> None:
    failed(engine, batches._SMALLEST + 2)

    def die(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        change_all(engine.database, "ada", "dismiss", FAILED, on_progress=die)
    (entry,) = list_audit_entries(engine.database)
    assert entry["detail"] == {"states": ["failed"], "matched": 12, "done": 10}
    left = DeliveryFilter(states=("failed",), not_dismissed=True)
    assert len(list_deliveries(engine.database, left).items) == 2
    assert change_all(engine.database, "ada", "dismiss", FAILED).done == 2


def test_opt_outs_and_stopped_sending_hold_for_retries(engine: Engine) -> None:
    ids = failed(engine, 3)
    address = engine.show(ids[0])["recipient"]
    save_opt_out(engine.database, OptOutChange("sms", address, True, "STOP to desk"))
    assert change_all(engine.database, "ada", "retry", FAILED).done == 3
    pause_all(engine.database, "wrong text", "grace", StopScope.MESSAGES)
    engine.run_due()
    assert engine.provider.messages == []
    resume_all(engine.database, "grace")
    engine.run_due()
    assert len(engine.provider.messages) == 2
    assert engine.show(ids[0])["reason"] == "opted_out"


def test_two_operators_retry_at_once_and_nothing_is_sent_twice(engine: Engine) -> None:
    failed(engine, 30)
    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(lambda actor: change_all(engine.database, actor, "retry", FAILED).done, ["ada", "grace"])
        )
    assert sum(done) == 30
    engine.run_due()
    assert len(engine.provider.messages) == 30

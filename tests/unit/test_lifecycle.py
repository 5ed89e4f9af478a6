"""Transitions of a delivery: only allowed ones can be applied, and only one module of the store applies them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.lifecycle import (
    ALLOWED,
    FINAL_STATES,
    DeliveryState,
    IllegalTransition,
    KeyEffect,
    Transition,
    is_unresolved,
)
from bridge.rules.model import OncePer, Retry
from bridge.store.deliveries import DeliveryOptions

STORE = Path(__file__).parents[2] / "bridge" / "store"
MODULES = [path for path in sorted(STORE.glob("*.py")) if path.name != "schema.py"]
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Row:
    """The columns of the state, in memory."""

    state: DeliveryState
    reason: str | None
    detail: str | None
    run_at: datetime
    outcome_unknown_since: datetime | None
    finished_at: datetime | None
    needs_follow_up: bool


NEW = [Transition.planned(NOW), Transition.not_rendered("no such field")]
TRANSITIONS: dict[str, Callable[[Row], Transition]] = {
    "deferred": lambda row: Transition.rescheduled(row, NOW + MINUTE, "quiet hours"),
    "retried now": lambda row: Transition.rescheduled(row, timedelta(0), row.detail),
    "started": lambda row: Transition(
        DeliveryState.RUNNING, row.reason, row.detail, row.run_at, row.outcome_unknown_since
    ),
    "succeeded": lambda _: Transition.succeeded("sent"),
    "bounced": lambda _: Transition.succeeded("sent", undelivered=True),
    "retry": lambda _: Transition.retry_in(MINUTE, "server_error", "503"),
    "lookup": lambda _: Transition.retry_in(MINUTE, "timeout", "no response", outcome_unknown_since=NOW),
    "needs review": lambda _: Transition.needs_review("timeout", "no lookup"),
    "failed": lambda _: Transition.failed("rejected", "wrong number"),
    "suppressed": lambda _: Transition.suppressed("expired", "too late"),
    "cancelled": lambda row: Transition.cancelled(row, "cancelled by ops"),
    "confirmed": lambda row: Transition.confirmed(row, "delivered"),
    "reported as undelivered": lambda row: Transition.confirmed(row, "30003", undelivered=True),
    "not delivered": lambda _: Transition.not_delivered("account", "30034"),
    "requeued": lambda row: Transition.requeued(row, "retry requested"),
}


def apply(
    row: Row | None, transition: Transition, now: datetime, trigger: str, *, on_success: bool = False
) -> Row:
    current, finished_at = (row.state, row.finished_at) if row else (None, None)
    columns = transition.columns(current, now, trigger, finished_at, on_success=on_success)
    return Row(**columns | {"state": transition.state})


@given(
    new=st.sampled_from(NEW),
    names=st.lists(st.sampled_from(sorted(TRANSITIONS)), max_size=20),
    trigger=st.sampled_from(["rule", "on_success", "on_failure", "alert"]),
    on_success=st.booleans(),
)
def test_random_transitions_keep_the_row_consistent(
    new: Transition, names: list[str], trigger: str, on_success: bool
) -> None:
    row, now, successes = apply(None, new, NOW, trigger), NOW, 0
    for name in names:
        now += MINUTE
        transition = TRANSITIONS[name](row)
        if transition.state not in ALLOWED[row.state]:
            with pytest.raises(IllegalTransition):
                apply(row, transition, now, trigger)
            continue
        before, row = row, apply(row, transition, now, trigger, on_success=on_success)
        is_finished = row.state in FINAL_STATES and row.state is not DeliveryState.NEEDS_REVIEW
        assert (row.finished_at is not None) == is_finished
        if row.outcome_unknown_since is not None:
            assert row.state in (DeliveryState.RUNNING, DeliveryState.RETRYING)
        if row.needs_follow_up:
            assert trigger != "alert"
            is_success = trigger == "rule" and on_success and row.state is DeliveryState.SUCCEEDED
            assert transition.is_failure or is_success
            successes += not transition.is_failure
        if (before.state, row.state) == (DeliveryState.SUCCEEDED, DeliveryState.FAILED):
            successes = 0  # it was undone
        assert successes <= 1
        if transition.key is KeyEffect.RELEASE:
            assert row.state is not DeliveryState.SUCCEEDED
            assert not transition.may_have_taken_effect
        if row.state is DeliveryState.CANCELLED:
            assert (transition.key is KeyEffect.RELEASE) != is_unresolved(before)
        if row.state is before.state is DeliveryState.SUCCEEDED:
            assert row.finished_at == before.finished_at


@pytest.mark.parametrize("state", [None, *DeliveryState])
def test_transition_to_any_other_state_raises(state: DeliveryState | None) -> None:
    for after in set(DeliveryState) - ALLOWED[state]:
        with pytest.raises(IllegalTransition, match=f"{state} -> {after}"):
            Transition(after).columns(state, NOW, "rule")


def test_every_state_can_be_reached_and_left() -> None:
    assert set().union(*ALLOWED.values()) == set(DeliveryState)
    assert all(ALLOWED.values())


def test_attempt_of_unknown_outcome_counts_as_possibly_sent() -> None:
    assert TRANSITIONS["lookup"](replace(_pending())).may_have_taken_effect
    assert not TRANSITIONS["retry"](_pending()).may_have_taken_effect


def _pending() -> Row:
    return apply(None, Transition.planned(NOW), NOW, "rule")


STATE_COLUMNS = {"state", "run_at", "outcome_unknown_since", "finished_at", "needs_follow_up"}
OTHER_COLUMNS = {
    "action_steps.py": {"finished_at"},
    "results.py": {"finished_at"},
    "repeated_attempts.py": {"finished_at"},
    "opt_out_queries.py": {"run_at"},
    "details.py": {"run_at"},
    "delivery_list.py": {"state"},
}
"""By module, columns of other tables (`attempts`, `opt_out_queries`, ...) that have these names, and criteria."""


def _written_names(tree: ast.AST) -> Iterator[str]:
    """Yield the names of columns that code writes: arguments of `.values()`, and the keys of literal dicts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "values":
            yield from (keyword.arg for keyword in node.keywords if keyword.arg)
        elif isinstance(node, ast.Dict):
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant))
        elif (
            isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.slice, ast.Constant)
        ):
            yield node.slice.value


def test_no_other_module_writes_the_state_of_a_delivery() -> None:
    for path in MODULES:
        tree = ast.parse(path.read_text("utf-8"))
        if path.name in (
            "follow_ups.py",
            "service_problems.py",
        ):  # the variables of templates are not columns
            tree.body = [
                node
                for node in tree.body
                if not (isinstance(node, ast.FunctionDef) and node.name.endswith("_template_vars"))
            ]
        written = set(_written_names(tree)) & STATE_COLUMNS
        if path.name == "transitions.py":
            assert written == {"needs_follow_up"}
        else:
            assert written <= OTHER_COLUMNS.get(path.name, set()), path.name


def test_untyped_rows_do_not_leave_the_function_that_reads_them() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and not node.name.endswith("from_row"):
                annotations = [argument.annotation for argument in (*node.args.args, *node.args.kwonlyargs)]
                signature = [ast.unparse(item) for item in (*annotations, node.returns) if item is not None]
                assert not [text for text in signature if "Row[" in text], f"{path.name}: {node.name}"


@pytest.mark.parametrize(
    "options",
    [
        DeliveryOptions(),
        DeliveryOptions(updates=True, shadow=True, force=True, on_success=True),
        DeliveryOptions(
            cancel_on=("call.answered",),
            once=OncePer("contact", timedelta(hours=24)),
            retry=Retry(timedelta(hours=1), 3),
        ),
        DeliveryOptions(retry=Retry(attempts=1)),
    ],
)
def test_options_survive_storage(options: DeliveryOptions) -> None:
    assert DeliveryOptions.from_json(options.to_json()) == options


def test_default_options_are_not_stored() -> None:
    assert DeliveryOptions().to_json() == "{}"

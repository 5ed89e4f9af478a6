"""Rerendering finds the step of each delivery, and never gives the content of one step to two deliveries."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from bridge.rules.model import PlannedDelivery
from bridge.store.rerender import find_step

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
KEYS = st.sampled_from(["a", "b", "c", "d"])
STEPS = st.lists(KEYS, min_size=1, max_size=4, unique=True)
"""The idempotency keys of the steps with one action, in file order."""


def planned(keys: list[str]) -> list[PlannedDelivery]:
    return [
        PlannedDelivery("text", "rule", index, "slack.post", "slack", {}, NOW, key, False, None)
        for index, key in enumerate(keys)
    ]


@given(old=STEPS, new=STEPS)
def test_each_step_gives_its_content_to_one_delivery(old: list[str], new: list[str]) -> None:
    steps = planned(new)
    found = [find_step(key, index, steps, old) for index, key in enumerate(old)]
    taken = [step.step_index for step in found if step is not None]
    assert len(taken) == len(set(taken))
    for key, step in zip(old, found, strict=True):
        if key in new:
            assert step is not None
            assert step.idempotency_key == key


def test_only_delivery_of_an_action_takes_the_only_step_wherever_it_is() -> None:
    [_, step] = planned(["x", "new"])
    assert find_step("old", 0, [step], ["old"]) is step
    assert find_step("old", 0, [step], ["old", "other"]) is None

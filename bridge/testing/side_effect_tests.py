"""Tests of the conformance suite with a fake provider: what an attempt changes there, and how often."""

# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from bridge.connector import Action, Context, Success
from bridge.connector.contacts import Property
from bridge.connector.params import example_of
from bridge.errors import ConfigError, DeliveryError, LookupInconclusive, OutcomeUnknown
from bridge.rules.templates import is_template
from bridge.testing.connection import Connected, render_params
from bridge.testing.suite_base import SuiteBase

MAX_WRITES = 4
"""The writes of one attempt whose responses are lost, one at a time."""
NOT_FOUND = "and it was not found by the lookup, therefore repeated"


class SideEffectTests(SuiteBase):
    """What exists at the provider afterwards."""

    def test_attempt_succeeds(self, action: Action) -> None:
        self._expected(action)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_lost_response_never_repeats_the_side_effect(
        self, action: Action, when: Literal["before", "after"]
    ) -> None:
        """One write of the attempt after the other: what of it took effect is done once, the rest in the end."""
        self._lose_each(action, when, None)

    def test_error_status_after_the_write_never_repeats_it(self, action: Action) -> None:
        self._needs_http()
        self._lose_each(action, "after", 502)

    def test_later_event_updates_the_record_with_existing_id(self, action: Action) -> None:
        if not action.idempotency.updates:
            pytest.skip("a second delivery with the same key is a duplicate")
        with self._provider() as (fake, connected):
            first = self._attempt(connected, action)
            count = fake.side_effect_count()
            if not isinstance(first, Success) or first.id is None:
                pytest.skip("the action has no external ID")
            second = self._attempt(connected, action, context=self._context(action, existing_id=first.id))
            created = fake.side_effect_count() - count
        if created or not isinstance(second, Success) or second.id != first.id:
            self._fail(
                f"{action.full_name}: update the record context.existing_id: a later event of the conversation "
                f"created {created} more, and returned {getattr(second, 'id', second)} instead of {first.id}"
            )

    def test_check_writes_nothing(self) -> None:
        with self._provider() as (fake, connected):
            count = fake.side_effect_count()
            with suppress(DeliveryError, ConfigError):
                connected.check()
            created = fake.side_effect_count() - count
        if created:
            self._fail(f"{self.connector.name}: @connector.check changes {created} records; it may only read")

    def test_params_are_sent(self, action: Action) -> None:
        """Each text gets a value of its own, which the provider must receive."""
        markers = dict(_markers(action, self.params_not_sent(action)))
        if not markers:
            pytest.skip("the action has no texts")
        missing = self._not_received(action, markers)
        if missing:  # the provider may know its examples only, and one param may exclude another
            examples = {name: _example(action, name) for name in missing}
            missing = self._not_received(action, examples)
            missing = {name for name in missing if self._not_received(action, {name: examples[name]})}
        if missing:
            self._fail(
                f"{action.full_name}: these params do not reach the provider: {', '.join(sorted(missing))}; send "
                "them, or return them from params_not_sent()"
            )

    def _not_received(self, action: Action, texts: Mapping[str, tuple[Any, str]]) -> set[str]:
        """Return the params, each with a value and its text, whose text the provider does not get."""
        values = dict(self.params(action)) | {name: value for name, (value, _) in texts.items()}
        received = ""
        with suppress(ValidationError), self._provider() as (fake, connected):
            action.params.model_validate(render_params(action, values, self.event(action)))
            self._attempt(connected, action, params=values)
            received = fake.received_text().casefold()
        return {name for name, (_, text) in texts.items() if text.casefold() not in received}

    # ------------------------------------------------------------ lost responses

    def _expected(self, action: Action) -> int:
        """Return the number of side effects of an attempt at which nothing fails."""
        return self._once("expected", action, lambda: self._count_side_effects(action))

    def _count_side_effects(self, action: Action) -> int:
        with self._provider() as (fake, connected):
            count = fake.side_effect_count()
            outcome = self._attempt(connected, action)
            if isinstance(outcome, DeliveryError):
                self._fail(f"{action.full_name}: an attempt at the fake provider fails: {outcome!r}")
            created = fake.side_effect_count() - count
        if not created:
            self._fail(f"{action.full_name}: the attempt succeeds, and side_effect_count() stays the same")
        return created

    def _lose_each(self, action: Action, when: Literal["before", "after"], status: int | None) -> None:
        """Lose the response of each write of an attempt in turn. Once their number is known, try no further one."""
        # A token with a lifetime is tried while the provider remembers it, and afterwards.
        for forgotten in (False, True) if isinstance(action.idempotent, timedelta) else (False,):
            for nth in range(1, MAX_WRITES + 1):
                if nth > self._results.get(("writes", action.name), nth):
                    break
                if not self._lose(action, when, nth, status, forgotten=forgotten):
                    break

    def _lose(
        self,
        action: Action,
        when: Literal["before", "after"],
        nth: int,
        status: int | None,
        *,
        forgotten: bool,
    ) -> bool:
        """Lose the response of the nth write and do what the bridge does then. Return False without such a write.

        `forgotten`: the provider no longer remembers the idempotency token.
        """
        expected = self._expected(action)
        with self._provider() as (fake, connected):
            context = self._context(action)
            count = fake.side_effect_count()
            fake.drop_next_response(when, nth=nth, status=status)
            failure = self._attempt(connected, action, context=context)
            written = fake.side_effect_count() - count
            if isinstance(failure, Success) and nth > 1 and written == expected:
                self._results["writes", action.name] = nth - 1
                return False
            if nth == 1 and isinstance(failure, DeliveryError) and when == "after" and written == 0:
                self._fail(
                    f"{action.full_name}: after drop_next_response('after') nothing was written: it must lose the "
                    "response of the next request that changes something, not that of a search before it"
                )
            then = self._proceed(connected, action, context, failure, forgotten=forgotten)
            if then == "left for review":
                return True
            if forgotten and then == NOT_FOUND and written == expected:
                self._fail(
                    f"{action.full_name}: the lookup does not find what was written, and the provider would write it "
                    "again once it has forgotten the idempotency token"
                )
            total = fake.side_effect_count() - count
        if total != expected:
            lost = f"the response of write {nth} was lost {when} it took effect"
            if status is not None:
                lost = f"write {nth} took effect and was answered with {status}"
            self._fail(f"{action.full_name}: {total} side effects instead of {expected}: {lost}, {then}")
        return True

    def _proceed(
        self,
        connected: Connected,
        action: Action,
        context: Context,
        failure: Success | DeliveryError,
        *,
        forgotten: bool,
    ) -> str:
        """Look up and repeat an attempt as the bridge does, and return in words what was done."""
        if isinstance(failure, Success):
            return "and the action succeeded: it repeats requests itself"
        then = (
            f"and it was repeated, because the action raised {type(failure).__name__}; raise OutcomeUnknown "
            "unless it is certain that nothing happened"
        )
        if action.idempotent and not forgotten:
            then = "and it was repeated, because of idempotent=...; a repeated request must change nothing"
        elif isinstance(failure, OutcomeUnknown) and context.steps.is_used and not action.channel:
            then = "and it was run again, because it takes steps; every write must be a step, and a lookup find it"
        elif isinstance(failure, OutcomeUnknown):
            if action.run_lookup is None:
                return "left for review"
            try:
                found = connected.find(action.name, self.params(action), context=context)
            except LookupInconclusive:
                return "left for review"
            if found is not None:
                return "and the lookup found a record: it must prove that the whole action took effect"
            then = NOT_FOUND
        try:
            self._attempt(connected, action, context=context)
        except LookupInconclusive:
            return "left for review"
        return then


def _markers(action: Action, excluded: Any) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Yield params with a value of their own, and the text of it that the provider must receive."""
    for number, (name, info) in enumerate(action.params.model_fields.items()):
        if name in excluded:
            continue
        marker = f"Zq{number}marker"
        example = example_of(info)
        read = _valid(info, example)
        if isinstance(read, dict) and read and all(isinstance(item, Property) for item in read.values()):
            yield name, ({next(iter(read)): marker}, marker)
        elif isinstance(example, str) and not is_template(example) and _valid(info, marker) == marker:
            yield name, (marker, marker)


def _example(action: Action, name: str) -> tuple[Any, str]:
    """Return the example of a param, and its text."""
    example = example_of(action.params.model_fields[name])
    return example, str(next(iter(example.values())) if isinstance(example, dict) else example)


def _valid(info: Any, value: Any) -> Any:
    """Return a value as its param reads it; an empty mapping if it is not valid."""
    try:
        return TypeAdapter(info.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return {}

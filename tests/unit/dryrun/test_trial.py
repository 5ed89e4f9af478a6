"""Trials are bounded: a plan compares as many of the newest events as fit into its time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from bridge.connector.discovery import Registry
from bridge.dryrun.trial import InvalidEvent, TooSlow, changed_event, compare, plan_json, sample_event
from bridge.events import Event
from bridge.rules.load import load_or_raise
from bridge.rules.model import Rules
from bridge.samples import refresh_sample, sample
from bridge.signing import read_event

START = datetime(2026, 3, 2, 15, tzinfo=UTC)


def rules(text: str) -> Rules:
    return load_or_raise(
        f"version: 1\nrules: [{{name: post, when: call.busy, do: [{{use: slack.post, with: {{text: {text}}}}}]}}]",
        path="rules.yaml",
        registry=Registry(),
    )


def events(number: int) -> list[Event]:
    found = []
    for index in range(number):
        at = START + timedelta(minutes=index)
        found.append(read_event(json.dumps(refresh_sample(sample("call.busy"), at)).encode(), at))
    return found


def ticking(step: float) -> Iterator[float]:
    return (number * step for number in count())


def test_all_events_are_compared_if_there_is_time() -> None:
    result = compare(rules("a"), rules("b"), events(120), clock=lambda: 0.0)
    assert (result.compared, result.plan.differences) == (120, 120)
    record = plan_json(result, 500, is_capped=True)
    assert (record["differences"], record["events_compared"], record["events_stored"]) == (120, 120, 500)
    assert [item["changes"] for item in record["samples"]] == [{"text": ["a", "b"]}] * 3
    assert record["samples"][0]["contact"] == "Ines Okafor"


def test_newest_events_are_compared_if_time_is_short() -> None:
    ticks = ticking(0.01)
    result = compare(rules("a"), rules("b"), events(400), clock=lambda: next(ticks), seconds=6)
    assert 100 <= result.compared < 400
    assert result.plan.until == START + timedelta(minutes=399)


def test_slow_rules_raise_an_error() -> None:
    ticks = ticking(1.0)
    with pytest.raises(TooSlow):
        compare(rules("a"), rules("b"), events(200), clock=lambda: next(ticks))


def test_event_to_try_has_the_given_phone_number() -> None:
    event = sample_event("call.busy", {"metadata.contactPhone": "+442079460123"}, START, None)
    assert (event.contact.phone, event.occurred_at) == ("+442079460123", START)
    raw = json.dumps(sample("call.busy")).encode()
    assert (
        changed_event(raw, {"metadata.contactPhone": "07911 123456"}, START, "GB").contact.phone
        == "+447911123456"
    )
    with pytest.raises(InvalidEvent, match="is not an event type"):
        sample_event("call.bussy", {}, START, None)

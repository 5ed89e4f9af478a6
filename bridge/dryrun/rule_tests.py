"""Rule tests: runs the `tests:` of a rules file on the engine and compares the results. Sends nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bridge.clock import parse_timestamp
from bridge.dryrun.coverage import Coverage, coverage_of
from bridge.dryrun.delivery import DryRunDelivery, State
from bridge.dryrun.engine import DryRun, temporary_database
from bridge.errors import ConfigError
from bridge.events import EVENT_TYPES, Event, dedupe_key_of
from bridge.json_values import parse_body, set_field
from bridge.policy.local_time import local_time
from bridge.policy.zones import zones_of
from bridge.rules.model import Expectation, Rules, RuleTest, RuleTestEvent
from bridge.rules.trace import Trace
from bridge.rules.unmet import unmet_conditions
from bridge.samples import iso, sample

ALERTS: Final = "alerts"
"""The name for the file's alerts in `expect`."""

_MINUTE = timedelta(minutes=1)
_STATE_PHRASES: Final[Mapping[State, str]] = {
    "pending": "was still pending",
    "succeeded": "succeeded",
    "needs_review": "needed review",
    "failed": "failed",
    "cancelled": "was cancelled",
    "suppressed": "was suppressed",
}


@dataclass(frozen=True)
class Mismatch:
    """One difference between the expectation and the result of a test."""

    rule: str
    line: int
    """The line of the expectation, or of the test for an unexpected delivery."""
    text: str
    details: tuple[str, ...] = ()
    """The explanation: the unmet conditions, or the setting that decided."""

    def to_json(self) -> dict[str, Any]:
        """Return the mismatch as plain data."""
        return {"rule": self.rule, "line": self.line, "text": self.text, "details": list(self.details)}


@dataclass(frozen=True)
class RuleTestResult:
    """The result of one test."""

    name: str
    path: str
    """The file that contains the test."""
    line: int
    mismatches: tuple[Mismatch, ...]
    deliveries: tuple[DryRunDelivery, ...]
    """All deliveries, in the order in which they were created."""

    @property
    def passed(self) -> bool:
        """True if there are no mismatches."""
        return not self.mismatches

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "name": self.name,
            "path": self.path,
            "line": self.line,
            "passed": self.passed,
            "mismatches": [mismatch.to_json() for mismatch in self.mismatches],
            "deliveries": [delivery.to_json() for delivery in self.deliveries],
        }


@dataclass(frozen=True)
class RuleTestReport:
    """The results of all tests, and their coverage."""

    results: tuple[RuleTestResult, ...]
    coverage: Coverage

    @property
    def passed(self) -> bool:
        """True if every test passed; gaps in the coverage do not matter."""
        return all(result.passed for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "passed": self.passed,
            "tests": [result.to_json() for result in self.results],
            "coverage": self.coverage.to_json(),
        }


def run_tests(
    rules: Rules,
    tests: Iterable[RuleTest] | None = None,
    *,
    folder: Path | None = None,
    on_result: Callable[[RuleTestResult], None] | None = None,
    default_country: str | None = None,
) -> RuleTestReport:
    """Run `tests` (default: the file's own) against the rules; call `on_result` after each test.

    Event files are read from `folder` (default: the folder of the test's file).
    """
    results, dry_runs = [], []
    with temporary_database(default_country) as database:
        for test in rules.tests if tests is None else tests:
            dry_run = DryRun(database, rules, fail=test.fail)
            mismatches: tuple[Mismatch, ...]
            try:
                test_folder = folder or Path(test.path or rules.path).parent
                events = build_events(test, test_folder, default_country)
                details = {
                    event.dedupe_key: item.details for event, item in zip(events, test.events, strict=True)
                }
                dry_run = DryRun(database, rules, fail=test.fail, details=details)
                dry_run.run(events)
            except ConfigError as error:
                mismatches = (Mismatch("", test.line, str(error)),)
            else:
                dry_runs.append(dry_run)
                mismatches = tuple(_compare(test, dry_run))
            result = RuleTestResult(test.name, test.path, test.line, mismatches, tuple(dry_run.deliveries))
            results.append(result)
            if on_result is not None:
                on_result(result)
    return RuleTestReport(tuple(results), coverage_of(rules, dry_runs))


# ---------------------------------------------------------------- events


def build_events(test: RuleTest, folder: Path, default_country: str | None = None) -> list[Event]:
    """Build the events of a test. Raise ConfigError naming a file that cannot be used."""
    events: list[Event] = []
    at: datetime | None = None
    for number, test_event in enumerate(test.events, start=1):
        event = _build_event(test_event, test_event.at or at, number, folder, default_country)
        at = event.received_at
        events.append(event)
    return events


def _build_event(
    test_event: RuleTestEvent, at: datetime | None, number: int, folder: Path, default_country: str | None
) -> Event:
    body = _body(test_event.source, folder)
    body["webhookId"] = f"whd_test_{number}"
    if at is None:
        at = parse_timestamp(body.get("timestamp"))
    else:
        body["timestamp"] = iso(at)
    if at is None:
        raise ConfigError(f"event {number}, {test_event.source}: it has no timestamp; set one with `at:`")
    for path, value in test_event.set.items():
        set_field(body, path.split("."), copy.deepcopy(value))
    raw = json.dumps(body).encode()
    return Event(body, dedupe_key_of(body, raw), at, f"evt_test_{number}", default_country)


def _body(source: str, folder: Path) -> dict[str, Any]:
    if source in EVENT_TYPES:
        return sample(source)
    try:
        return parse_body((folder / source).read_bytes())
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError as error:
        raise ConfigError(f"{source} is not an event: {error}") from None


# ---------------------------------------------------------------- comparing


def _compare(test: RuleTest, dry_run: DryRun) -> Iterable[Mismatch]:
    by_rule: dict[str, list[DryRunDelivery]] = {}
    for delivery in dry_run.deliveries:
        by_rule.setdefault(_rule_name(delivery), []).append(delivery)
    expected_by_rule = test.expect or dict.fromkeys(by_rule, ())
    for rule, expected in expected_by_rule.items():
        yield from _compare_rule(test, rule, expected, by_rule.get(rule, []), dry_run)


def _rule_name(delivery: DryRunDelivery) -> str:
    return ALERTS if delivery.planned.trigger == "alert" else delivery.planned.rule


def _compare_rule(
    test: RuleTest,
    rule: str,
    expected: Sequence[Expectation],
    deliveries: Sequence[DryRunDelivery],
    dry_run: DryRun,
) -> Iterable[Mismatch]:
    time_zone = dry_run.rules.messaging.time_zone
    pairs = _pair(expected, deliveries, test.fail)
    unmatched = [delivery for index, delivery in enumerate(deliveries) if index not in pairs.values()]
    for index, expectation in enumerate(expected):
        if index in pairs:
            continue
        closest = min(
            (delivery for delivery in unmatched if delivery.planned.action == expectation.use),
            key=lambda delivery: len(_differences(expectation, delivery, test.fail)),
            default=None,
        )
        if closest is None:
            yield Mismatch(
                rule,
                expectation.line,
                f"{_describe_expectation(expectation)}: no such delivery",
                _explain_unfired(rule, dry_run.traces),
            )
        else:
            unmatched.remove(closest)
            differences = "; ".join(_differences(expectation, closest, test.fail))
            yield Mismatch(
                rule,
                expectation.line,
                f"{_describe_expectation(expectation)}: {differences}",
                _details(closest, expectation.at, time_zone),
            )
    for delivery in unmatched:
        # Suppressed and cancelled deliveries need no expectation.
        if not delivery.held_back:
            text = f"unexpected: {delivery.planned.action} {_describe_state(delivery, delivery.event.received_at)}"
            yield Mismatch(rule, test.line, text, _details(delivery, None, time_zone))


def _pair(
    expected: Sequence[Expectation], deliveries: Sequence[DryRunDelivery], fail: Mapping[str, str]
) -> dict[int, int]:
    """Match as many expectations with deliveries as possible (augmenting paths); return pairs of their indexes."""
    matched: dict[int, int] = {}

    def find_match(index: int, tried: set[int]) -> bool:
        for candidate, delivery in enumerate(deliveries):
            if candidate not in tried and not _differences(expected[index], delivery, fail):
                tried.add(candidate)
                if candidate not in matched or find_match(matched[candidate], tried):
                    matched[candidate] = index
                    return True
        return False

    for index in range(len(expected)):
        find_match(index, set())
    return {index: candidate for candidate, index in matched.items()}


def _differences(expectation: Expectation, delivery: DryRunDelivery, fail: Mapping[str, str]) -> list[str]:
    """Describe how a delivery differs from the expectation; empty if it meets it."""
    planned = delivery.planned
    if planned.action != expectation.use:
        return [f"it is {planned.action}"]
    differences = []
    if not _state_matches(expectation, delivery, fail):
        differences.append(f"it {_describe_state(delivery, expectation.at)}")
    elif expectation.at is not None and abs(delivery.at - expectation.at) >= _MINUTE:
        differences.append(f"it was at {_time(delivery.at, expectation.at)}")
    if expectation.reason is not None and delivery.reason != expectation.reason:
        differences.append(f"its reason is {delivery.reason or 'none'}")
    if expectation.connection is not None and planned.connection != expectation.connection:
        differences.append(f"it is for connection {planned.connection}")
    for name, value in (expectation.params or {}).items():
        if planned.params.get(name) != value:
            actual = _json(planned.params[name]) if name in planned.params else "missing"
            differences.append(f"{name} is {actual}, not {_json(value)}")
    return differences


def _state_matches(expectation: Expectation, delivery: DryRunDelivery, fail: Mapping[str, str]) -> bool:
    """Without a `state`, the delivery must succeed, or be attempted if the test makes its provider fail."""
    if expectation.state is not None:
        return delivery.state == expectation.state
    return delivery.state == "succeeded" or (delivery.attempted and delivery.planned.action in fail)


def _describe_expectation(expectation: Expectation) -> str:
    parts = [f"expected {expectation.use}"]
    if expectation.state:
        parts.append(expectation.state)
    if expectation.reason:
        parts.append(f"({expectation.reason})")
    if expectation.at:
        parts.append(f"at {_time(expectation.at, expectation.at)}")
    return " ".join(parts)


def _describe_state(delivery: DryRunDelivery, like: datetime | None) -> str:
    reason = f" ({delivery.reason})" if delivery.reason else ""
    return f"{_STATE_PHRASES[delivery.state]}{reason} at {_time(delivery.at, like or delivery.event.received_at)}"


def _time(instant: datetime, like: datetime) -> str:
    """Format an instant in the UTC offset that the test uses."""
    return instant.astimezone(like.tzinfo).isoformat(timespec="minutes")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _details(delivery: DryRunDelivery, like: datetime | None, time_zone: str) -> tuple[str, ...]:
    """Return what decided, and for a message the recipient's clock if it differs from that of the test."""
    details = [delivery.detail] if delivery.detail else []
    planned = delivery.planned
    if planned.channel and not planned.internal:
        clock = local_time(delivery.at, zones_of(delivery.event.contact, planned.recipient, time_zone))
        in_test = _time(delivery.at, like or delivery.event.received_at)
        if not clock.startswith(in_test[:16].replace("T", " ")):
            details.append(f"on the recipient's clock: {clock}")
    return tuple(details)


def _explain_unfired(rule: str, traces: Sequence[tuple[Event, Sequence[Trace]]]) -> tuple[str, ...]:
    """Explain for each event why a rule did not fire."""
    details = []
    for event, event_traces in traces:
        for trace in event_traces:
            if trace.rule != rule or trace.fired:
                continue
            if trace.error:
                details.append(f"{event.type}: {trace.error}")
            details += [f"{event.type}: {condition}" for condition in unmet_conditions(trace)]
    return tuple(details)

"""Implementation of `bridge explain`, `test` and `plan`: dry runs of the rules."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from rich.status import Status
from rich.table import Table
from rich.text import Text

from bridge.cli.arguments import parse_time_option
from bridge.cli.bootstrap import address_hasher, registry_for
from bridge.cli.db import open_store, sqlite_path
from bridge.cli.event_input import build_event_body, read_event_input
from bridge.cli.output import console, echo, errors, pluralize, print_json, print_status
from bridge.cli.rules_source import new_rules, rules_path
from bridge.cli.show import print_traces, print_unreadable_fields
from bridge.clock import format_timestamp, parse_timestamp
from bridge.connector.action_name import ActionName
from bridge.dryrun.explain import Explanation, PlannedOutcome
from bridge.dryrun.explain import explain as explain_event
from bridge.dryrun.plan import Difference, Plan, Totals
from bridge.dryrun.plan import plan as plan_change
from bridge.dryrun.rule_tests import RuleTestReport, RuleTestResult, run_tests
from bridge.dryrun.simulator import without_duplicates
from bridge.dryrun.test_files import load_test_files
from bridge.errors import ConfigError
from bridge.events import Event
from bridge.policy import PolicyInputs
from bridge.policy.local_time import local_time
from bridge.rules.counting import History, no_history
from bridge.rules.files import read_rules_files
from bridge.rules.load import load_or_raise
from bridge.rules.model import PlannedDelivery, Rules
from bridge.settings import Settings, environment
from bridge.signing import read_event
from bridge.store.contact_history import contact_history
from bridge.store.policy_inputs import inputs_for_planned
from bridge.store.queries import count_stored_events, latest_rules, stored_event, stored_events

_MAX_INLINE = 40
"""Maximum characters of an old value that is printed on one line with the new value."""


def load_file(path: Path, settings: Settings) -> Rules:
    """Return the rules of a file or folder without requiring the settings of its accounts. Raise RulesError."""
    return load_or_raise(read_rules_files(path), path=str(path), registry=registry_for(path, settings))


def _event(name: str, changes: Sequence[str], environ: Mapping[str, str], now: datetime) -> Event:
    """Return the event for the EVENT argument. A stored event keeps its ID and its times."""
    if name.startswith("evt_") and not changes:
        with open_store(Settings.load(environ)) as database:
            return stored_event(database, name)
    body = build_event_body(read_event_input(name, environ), changes, now)
    return read_event(body, now, Settings.load(environ).bridge_default_country)


# ---------------------------------------------------------------- explain


def explain(
    name: str, rules_file: Path | None, changes: Sequence[str], at: str | None, *, as_json: bool
) -> None:
    """Print why each rule fires or not, and the planned deliveries."""
    environ = environment()
    settings = Settings.load(environ)
    now = parse_timestamp(at) if at else datetime.now(UTC)
    if now is None:
        raise ConfigError(f"invalid --at `{at}`: write a timestamp like 2026-03-02T21:30:00-05:00")
    rules = load_file(rules_path(rules_file, settings.bridge_rules_file), settings)
    event = _event(name, changes, environ, now)
    with _stored_data(settings, event, rules) as (load_inputs, history):
        explanation = explain_event(
            event,
            rules,
            now,
            load_inputs=load_inputs,
            history=history,
            allowlist=settings.bridge_recipient_allowlist,
        )
    if as_json:
        print_json(explanation.to_json())
    else:
        _print_explanation(explanation, now)


@contextmanager
def _stored_data(
    settings: Settings, event: Event, rules: Rules
) -> Iterator[tuple[Callable[[PlannedDelivery], PolicyInputs] | None, History]]:
    """Yield a function that loads the policy inputs of a delivery (None without a database), and the history."""
    path = sqlite_path(settings.bridge_database_url)
    if path is not None and not path.exists():
        yield None, no_history
        return
    with open_store(settings) as database:
        hasher = address_hasher(settings)
        with contact_history(database) as history:
            yield (
                lambda planned: inputs_for_planned(database, planned, event, rules.messaging, hasher),
                history,
            )


def _print_explanation(explanation: Explanation, now: datetime) -> None:
    event = explanation.event
    contact = event.contact
    contact_fields = [contact.name, contact.phone, contact.email, contact.time_zone]
    console().print(Text(event.type, "bold").append(f"  {event.id or event.dedupe_key}", "none"))
    echo(
        f"Contact: {', '.join(value for value in contact_fields if value) or 'unknown'}; "
        f"occurred at {format_timestamp(event.occurred_at)} UTC"
    )
    print_unreadable_fields([asdict(item) for item in event.unreadable_fields])
    console().print(Text("\nRules", "bold cyan"))
    print_traces([trace.to_json() for trace in explanation.traces])
    console().print(Text("\nDeliveries", "bold cyan"))
    if not explanation.deliveries:
        echo("none" + (f": {explanation.hint}" if explanation.hint else ""))
    for outcome in explanation.deliveries:
        _print_outcome(outcome, now)


def _print_outcome(outcome: PlannedOutcome, now: datetime) -> None:
    planned = outcome.planned
    line = Text(f"{planned.action}", "bold")
    if planned.connection != ActionName.parse(planned.action).connector:
        line.append(f" ({planned.connection})", "none")
    line.append(f"  of {planned.rule}", "dim")
    text, color = _describe_outcome(outcome, now)
    console().print(line.append(f"  {text}", color), soft_wrap=True)
    for detail in outcome.details:
        echo(f"    {detail}")
    for note in planned.notes:
        echo(f"    left out: {note}")
    for name, value in planned.params.items():
        if value not in (None, "", {}, []):
            echo(f"    {name}: {_format_value(value)}")
    if outcome.segments is not None and (outcome.segments.count > 1 or outcome.segments.special):
        echo(f"    billed as {outcome.segments}")
    if planned.cancel_on:
        echo(f"    cancelled if {' or '.join(planned.cancel_on)} occurs first")


def _describe_outcome(outcome: PlannedOutcome, now: datetime) -> tuple[str, str]:
    """Return the text for an outcome, and its color."""
    match outcome.outcome:
        case "go":
            is_immediate = outcome.at - now < timedelta(seconds=1)
            at = f"at {local_time(outcome.at, outcome.zones)} ({format_timestamp(outcome.at)} UTC)"
            return ("now" if is_immediate else at), "green"
        case "suppress":
            return f"would be suppressed: {outcome.reason}", "yellow"
        case "cancel":
            return "would be cancelled", "yellow"
        case "failed":
            return f"would fail: {outcome.reason}", "red"
        case "wait":
            return "would wait", "yellow"


# ---------------------------------------------------------------- test


def test(file: Path | None, *, as_json: bool) -> bool:
    """Run the tests in a rules file and in the test files next to it. Return whether all passed."""
    settings = Settings.load(environment())
    path = rules_path(file, settings.bridge_rules_file)
    rules, files = load_test_files(load_file(path, settings), registry_for(path, settings))
    if broken := [file.report for file in files if not file.usable]:
        print_status("\n\n".join(broken))
        return False
    if as_json:
        report = run_tests(rules, default_country=settings.bridge_default_country)
        print_json(report.to_json())
        return report.passed
    tests_per_file = Counter(test.path for test in rules.tests)
    if not tests_per_file:
        echo(f"{path} has no tests; docs/rules.md explains how to write them")

    def on_result(result: RuleTestResult) -> None:
        if result.path in tests_per_file:
            echo(f"{result.path}: {pluralize(tests_per_file.pop(result.path), 'test')}")
        _print_result(result)

    report = run_tests(rules, on_result=on_result, default_country=settings.bridge_default_country)
    _print_report(report)
    _print_crm_note(rules)
    return report.passed


def _print_crm_note(rules: Rules) -> None:
    """Say that dry runs ask no CRM, if the policy of these rules does."""
    if crms := rules.messaging.crm_opt_outs:
        echo(
            f"\nOpt-out flags in {' and '.join(crms)} (messaging.crm_opt_outs) are only read when a message is sent."
        )


def _print_result(result: RuleTestResult) -> None:
    if result.passed:
        console().print(Text("  ✓ ", "green").append(result.name, "none"), soft_wrap=True)
        return
    console().print(Text("  ✗ ", "bold red").append(result.name, "bold"), soft_wrap=True)
    for mismatch in result.mismatches:
        rule = f"{mismatch.rule}: " if mismatch.rule else ""
        echo(f"      {result.path}:{mismatch.line}: {rule}{mismatch.text}")
        for detail in mismatch.details:
            echo(f"        {detail}")


def _print_report(report: RuleTestReport) -> None:
    failed = sum(not result.passed for result in report.results)
    passed = len(report.results) - failed
    summary = f"\n{passed} passed" + (f", {failed} failed" if failed else "")
    console().print(Text(summary, "bold red" if failed else "bold green"))
    coverage = report.coverage
    if not report.results:
        return
    echo(
        f"\nThe tests cover {coverage.rules[0]} of {pluralize(coverage.rules[1], 'rule')}, "
        f"{coverage.actions[0]} of {pluralize(coverage.actions[1], 'action')}, and "
        f"{coverage.conditions[0]} of {coverage.conditions[1]} outcomes of conditions (each can be true and false)."
    )
    if coverage.gaps:
        echo("Not covered:")
    for gap in coverage.gaps:
        echo(f"  {gap.path}:{gap.line}: {gap.rule}: {gap.text}")


# ---------------------------------------------------------------- plan


def plan(
    new: Path,
    since: str,
    baseline: Path | None,
    names: Sequence[str],
    samples: int,
    *,
    as_json: bool,
    file: Path | None = None,
) -> bool:
    """Compare the rules with `new` in place of `file` with those that ran last, over the same events.

    Return False if the new rules have more deliveries that cannot be rendered.
    """
    environ = environment()
    settings = Settings.load(environ)
    now, start = datetime.now(UTC), parse_time_option(since, "--since")
    active = settings.bridge_rules_file
    source = new_rules(new, file, active)
    registry = registry_for(source.path, settings)
    after = load_or_raise(source.files, path=str(source.path), registry=registry)
    with ExitStack() as stack:
        last_rules, number = None, len(names)
        events = without_duplicates([_event(name, (), environ, now) for name in names])
        if not names:
            database = stack.enter_context(open_store(settings))
            last_rules = None if baseline else latest_rules(database)
            number = count_stored_events(database, start, now)
            events = stored_events(database, start, now)
        if last_rules is None:
            before, baseline_name = _baseline_rules(baseline or active, settings)
        else:
            before = load_or_raise(last_rules, path="the rules that ran last", registry=registry)
            baseline_name = f"the rules that ran last ({before.hash[:12]})"
        with _track_events(number) as on_event:
            result = plan_change(
                before, after, events,
                allowlist=settings.bridge_recipient_allowlist, samples=samples, on_event=on_event,
            )  # fmt: skip
    if as_json:
        print_json(result.to_json())
    else:
        _print_plan(result, baseline_name, source.description)
        _print_crm_note(after)
    return result.new.broken <= result.old.broken


@contextmanager
def _track_events(total: int) -> Iterator[Callable[[], None]]:
    """Show how many events there are, and how many are done; the caller reports each."""
    done = count(1)
    with Status(f"Routing {pluralize(total, 'event')} with both ...", console=errors()) as status:

        def on_event() -> None:
            if (number := next(done)) % 1000 == 0:
                status.update(f"Routing {pluralize(total, 'event')} with both ... {number:,} done")

        yield on_event


def _baseline_rules(path: Path, settings: Settings) -> tuple[Rules, str]:
    return load_file(path, settings), str(path)


def _print_plan(result: Plan, old: str, new: str) -> None:
    period = (
        f" from {format_timestamp(result.since)} to {format_timestamp(result.until)} UTC"
        if result.since
        else ""
    )
    echo(f"{pluralize(result.events, 'event')}{period}\nold: {old}\nnew: {new}\n")
    if not result.events:
        echo("No events in this period, so nothing to compare. Use --event to try a sample or a file.")
        return
    if not result.differences:
        echo("No delivery would be different.")
        return
    echo(f"{pluralize(result.differences, 'delivery')} would be different.\n")
    table = _table("Rule", "added", "removed", "changed")
    for rule, numbers in result.rules.items():
        added, removed, changed = numbers.get("added"), numbers.get("removed"), numbers.get("changed")
        table.add_row(rule, _with_sign("+", added), _with_sign("-", removed), _with_sign("~", changed))
    console().print(table)
    console().print()
    console().print(_totals_table(result.old, result.new))
    for difference in result.samples:
        _print_difference(difference)


def _table(first: str, *numbers: str) -> Table:
    table = Table(first, box=None, pad_edge=False, header_style="bold")
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _with_sign(sign: str, number: int | None) -> str:
    return f"{sign}{number}" if number else ""


def _totals_table(old: Totals, new: Totals) -> Table:
    table = _table("Total for the period", "old", "new")
    rows: list[tuple[str, int, int]] = [("deliveries", old.deliveries, new.deliveries)]
    for channel in sorted({*old.messages, *new.messages}):
        name = {"sms": "text messages", "email": "emails", "call": "calls"}.get(channel, channel)
        rows.append((name, old.messages.get(channel, 0), new.messages.get(channel, 0)))
        if channel == "sms":
            rows.append(("SMS segments (billed)", old.segments, new.segments))
    for connection in sorted({*old.requests, *new.requests}):
        rows.append(
            (
                f"{connection}: requests (maximum)",
                old.requests.get(connection, 0),
                new.requests.get(connection, 0),
            )
        )
    for reason in sorted({*old.held_back, *new.held_back}):
        rows.append((f"held back: {reason}", old.held_back.get(reason, 0), new.held_back.get(reason, 0)))
    for connection in sorted({*old.stopped, *new.stopped}):
        name = f"{connection}: stopped by messaging.caps.total"
        rows.append((name, old.stopped.get(connection, 0), new.stopped.get(connection, 0)))
    rows.append(("cannot be rendered", old.broken, new.broken))
    for name, before, after in rows:
        if before or after:
            table.add_row(name, str(before), Text(str(after), "bold" if before != after else ""))
    return table


def _print_difference(difference: Difference) -> None:
    sign, color = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}[
        difference.kind
    ]
    delivery = difference.delivery
    planned = delivery.planned
    line = Text(f"\n{sign} {planned.action}", color).append(f"  of {planned.rule}", "none")
    line.append(
        f"  {delivery.event.type} {delivery.event.id or ''}  at {format_timestamp(delivery.at)} UTC", "dim"
    )
    console().print(line, soft_wrap=True)
    if difference.detail:
        echo(
            f"    before: {difference.detail}"
            if difference.kind == "added"
            else f"    now: {difference.detail}"
        )
    if difference.kind == "changed":
        for name, (before, after) in difference.changes.items():
            if name == "at":
                before, after = (f"{format_timestamp(parse_timestamp(time))} UTC" for time in (before, after))
            old = _format_value(before)
            arrow = " -> " if len(old) < _MAX_INLINE else f"\n    {'':{len(name)}}  -> "
            echo(f"    {name}: {old}{arrow}{_format_value(after)}")
    else:
        for name in ("to", "subject", "body", "text"):
            if planned.params.get(name):
                echo(f"    {name}: {_format_value(planned.params[name])}")


def _format_value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())[:200]

"""What `bridge explain`, `test` and `plan` do and show."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.status import Status
from rich.table import Table
from rich.text import Text

from bridge.cli.arguments import instant_of
from bridge.cli.bootstrap import registry_for
from bridge.cli.check import read
from bridge.cli.db import open_store, sqlite_path
from bridge.cli.event_input import prepared, read_source
from bridge.cli.inspect_commands import print_traces
from bridge.cli.output import console, counted, errors, instant, note, print_json, say
from bridge.dryrun.explain import Explanation, Forecast
from bridge.dryrun.explain import explain as explain_event
from bridge.dryrun.plan import Difference, Load, Plan
from bridge.dryrun.plan import plan as plan_change
from bridge.dryrun.rule_tests import Report, Result, run_tests
from bridge.dryrun.test_files import with_tests_beside
from bridge.errors import ConfigError
from bridge.events import Event, parse_instant
from bridge.policy import Facts
from bridge.rules.load import load_or_raise
from bridge.rules.model import Planned, Rules
from bridge.settings import Settings, environment
from bridge.signing import read_event
from bridge.store.policy_inputs import facts_about
from bridge.store.queries import latest_rules, stored_event, stored_events

_SHORT = 40
"""Characters of a value that may stand on one line with what becomes of it."""


def load_file(path: Path) -> Rules:
    """The rules in a file, whether or not its accounts are set up here; raises RulesError."""
    return load_or_raise(read(path), path=str(path), registry=registry_for(path))


def _event(name: str, changes: Sequence[str], environ: Mapping[str, str], now: datetime) -> Event:
    """The event that EVENT names; a stored one keeps its id and its times."""
    if name.startswith("evt_") and not changes:
        with open_store(Settings.load(environ)) as database:
            return stored_event(database, name)
    return read_event(prepared(read_source(name, environ), changes, now), now)


# ---------------------------------------------------------------- explain


def explain(
    name: str, rules_file: Path | None, changes: Sequence[str], at: str | None, *, as_json: bool
) -> None:
    """Why each rule fires or not, and what would be done."""
    environ = environment()
    settings = Settings.load(environ)
    now = parse_instant(at) if at else datetime.now(UTC)
    if now is None:
        raise ConfigError(f"--at takes an instant like 2026-03-02T21:30:00-05:00, not `{at}`")
    rules = load_file(rules_file or settings.bridge_rules_file)
    event = _event(name, changes, environ, now)
    with _facts(settings, event, rules) as facts_of:
        explanation = explain_event(
            event, rules, now, facts_of=facts_of, allowlist=settings.bridge_recipient_allowlist
        )
    if as_json:
        print_json(explanation.to_json())
    else:
        _print_explanation(explanation, now)


@contextmanager
def _facts(settings: Settings, event: Event, rules: Rules) -> Iterator[Callable[[Planned], Facts] | None]:
    """What the service's database knows; None where there is none."""
    path = sqlite_path(settings.bridge_database_url)
    if path is not None and not path.exists():
        yield None
        return
    with open_store(settings) as database:
        yield lambda planned: facts_about(database, planned, event, rules.messaging)


def _print_explanation(explanation: Explanation, now: datetime) -> None:
    event = explanation.event
    contact = event.contact
    known = [contact.name, contact.phone, contact.email, contact.time_zone]
    console().print(Text(event.type, "bold").append(f"  {event.id or event.dedupe_key}", "none"))
    say(
        f"about {', '.join(word for word in known if word) or 'nobody known'}; "
        f"happened {instant(event.occurred_at)} UTC"
    )
    console().print(Text("\nRules", "bold cyan"))
    print_traces([trace.to_json() for trace in explanation.traces])
    console().print(Text("\nWhat would be done", "bold cyan"))
    if not explanation.deliveries:
        say("nothing" + (f": {explanation.hint}" if explanation.hint else ""))
    for forecast in explanation.deliveries:
        _print_forecast(forecast, now)


def _print_forecast(forecast: Forecast, now: datetime) -> None:
    planned = forecast.planned
    connector = planned.action.partition(".")[0]
    line = Text(f"{planned.action}", "bold")
    if planned.connection != connector:
        line.append(f" ({planned.connection})", "none")
    line.append(f"  of {planned.rule}", "dim")
    words, colour = _outcome(forecast, now)
    console().print(line.append(f"  {words}", colour), soft_wrap=True)
    for why in forecast.why:
        say(f"    {why}")
    for name, value in planned.params.items():
        if value not in (None, "", {}, []):
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            say(f"    {name}: {' '.join(shown.split())[:200]}")
    if planned.cancel_on:
        say(f"    unless {' or '.join(planned.cancel_on)} comes before")


def _outcome(forecast: Forecast, now: datetime) -> tuple[str, str]:
    match forecast.outcome:
        case "go":
            soon = forecast.at - now < timedelta(seconds=1)
            return ("now" if soon else f"at {instant(forecast.at)} UTC"), "green"
        case "suppress":
            return f"would be suppressed: {forecast.reason}", "yellow"
        case "cancel":
            return "would be cancelled", "yellow"
        case "failed":
            return f"would be a dead letter: {forecast.reason}", "red"
        case "wait":
            return "would wait, and nobody can tell until when", "yellow"


# ---------------------------------------------------------------- test


def test(file: Path | None, *, as_json: bool) -> bool:
    """Run the tests of a file and of the files beside it; returns whether all passed."""
    path = file or Settings.load(environment()).bridge_rules_file
    rules, files = with_tests_beside(load_file(path), registry_for(path))
    if broken := [file.report for file in files if not file.usable]:
        note("\n\n".join(broken))
        return False
    if as_json:
        report = run_tests(rules)
        print_json(report.to_json())
        return report.passed
    number = Counter(test.path for test in rules.tests)
    if not number:
        say(f"{path} has no tests; docs/rules.md says how to write them")

    def on_result(result: Result) -> None:
        if result.path in number:
            say(f"{result.path}: {counted(number.pop(result.path), 'test')}")
        _print_result(result)

    report = run_tests(rules, on_result=on_result)
    _print_report(report, path)
    return report.passed


def _print_result(result: Result) -> None:
    if result.passed:
        console().print(Text("  ✓ ", "green").append(result.name, "none"), soft_wrap=True)
        return
    console().print(Text("  ✗ ", "bold red").append(result.name, "bold"), soft_wrap=True)
    for mismatch in result.mismatches:
        rule = f"{mismatch.rule}: " if mismatch.rule else ""
        say(f"      {result.path}:{mismatch.line}: {rule}{mismatch.text}")
        for why in mismatch.why:
            say(f"        {why}")


def _print_report(report: Report, path: Path) -> None:
    failed = sum(not result.passed for result in report.results)
    passed = len(report.results) - failed
    words = f"\n{passed} passed" + (f", {failed} failed" if failed else "")
    console().print(Text(words, "bold red" if failed else "bold green"))
    cover = report.coverage
    if not report.results:
        return
    say(
        f"\nThe tests tried {cover.rules[0]} of {counted(cover.rules[1], 'rule')}, "
        f"{cover.actions[0]} of {counted(cover.actions[1], 'action')}, and "
        f"{cover.conditions[0]} of {cover.conditions[1]} outcomes of conditions (each can hold and not hold)."
    )
    if cover.gaps:
        say("Never tried:")
    for gap in cover.gaps:
        say(f"  {path}:{gap.line}: {gap.rule}: {gap.text}")


# ---------------------------------------------------------------- plan


def plan(
    new: Path, since: str, baseline: Path | None, names: Sequence[str], samples: int, *, as_json: bool
) -> bool:
    """Compare two sets of rules over the same events; returns whether the new ones can be rendered everywhere."""
    environ = environment()
    settings = Settings.load(environ)
    now, begins = datetime.now(UTC), instant_of(since, "--since")
    after = load_file(new)
    with Status("Reading events ...", console=errors()) as status:
        if names:
            events = [_event(name, (), environ, now) for name in names]
            before, which = _baseline_rules(baseline or settings.bridge_rules_file)
        else:
            with open_store(settings) as database:
                events = stored_events(database, begins)
                ran = None if baseline else latest_rules(database)
            if ran is None:
                before, which = _baseline_rules(baseline or settings.bridge_rules_file)
            else:
                before = load_or_raise(ran, path="the rules that ran last", registry=registry_for(new))
                which = f"the rules that ran last ({before.hash[:12]})"
        status.update(f"Trying {counted(len(events), 'event')} with both ...")
        found = plan_change(before, after, events, allowlist=settings.bridge_recipient_allowlist)
    if as_json:
        print_json(found.to_json(samples))
    else:
        _print_plan(found, which, str(new), samples)
    return found.new.broken <= found.old.broken


def _baseline_rules(path: Path) -> tuple[Rules, str]:
    return load_file(path), str(path)


def _print_plan(found: Plan, old: str, new: str, samples: int) -> None:
    span = f" from {instant(found.since)} to {instant(found.until)} UTC" if found.since else ""
    say(f"{counted(found.events, 'event')}{span}\nold: {old}\nnew: {new}\n")
    if not found.events:
        say("There is nothing to compare with: no events in that time. --event tries a sample or a file.")
        return
    if not found.differences:
        say("No delivery would be different.")
        return
    say(f"{counted(len(found.differences), 'delivery')} would be different.\n")
    table = _table("Rule", "added", "removed", "changed")
    for rule, numbers in found.counts().items():
        added, removed, changed = numbers.get("added"), numbers.get("removed"), numbers.get("changed")
        table.add_row(rule, _signed("+", added), _signed("-", removed), _signed("~", changed))
    console().print(table)
    console().print()
    console().print(_loads(found.old, found.new))
    for difference in found.samples(samples):
        _print_difference(difference)


def _table(first: str, *numbers: str) -> Table:
    table = Table(first, box=None, pad_edge=False, header_style="bold")
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _signed(sign: str, number: int | None) -> str:
    return f"{sign}{number}" if number else ""


def _loads(old: Load, new: Load) -> Table:
    table = _table("Over the whole time", "old", "new")
    rows: list[tuple[str, int, int]] = [("deliveries", old.deliveries, new.deliveries)]
    for channel in sorted({*old.messages, *new.messages}):
        name = {"sms": "texts", "email": "mails", "call": "calls"}.get(channel, channel)
        rows.append((name, old.messages.get(channel, 0), new.messages.get(channel, 0)))
        if channel == "sms":
            rows.append(("segments of texts (billed)", old.segments, new.segments))
    for connection in sorted({*old.requests, *new.requests}):
        rows.append(
            (
                f"{connection}: requests, at most",
                old.requests.get(connection, 0),
                new.requests.get(connection, 0),
            )
        )
    for reason in sorted({*old.held_back, *new.held_back}):
        rows.append((f"held back: {reason}", old.held_back.get(reason, 0), new.held_back.get(reason, 0)))
    rows.append(("cannot be rendered", old.broken, new.broken))
    for name, before, after in rows:
        if before or after:
            table.add_row(name, str(before), Text(str(after), "bold" if before != after else ""))
    return table


def _print_difference(difference: Difference) -> None:
    sign, colour = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}[
        difference.kind
    ]
    delivery = difference.delivery
    planned = delivery.planned
    line = Text(f"\n{sign} {planned.action}", colour).append(f"  of {planned.rule}", "none")
    line.append(f"  {delivery.event.type} {delivery.event.id or ''}  at {instant(delivery.at)} UTC", "dim")
    console().print(line, soft_wrap=True)
    if difference.why:
        say(f"    before: {difference.why}" if difference.kind == "added" else f"    now: {difference.why}")
    if difference.kind == "changed":
        for name, (was, will) in difference.changes.items():
            if name == "at":
                was, will = (f"{instant(parse_instant(time))} UTC" for time in (was, will))
            arrow = " -> " if len(_shown(was)) < _SHORT else f"\n    {'':{len(name)}}  -> "
            say(f"    {name}: {_shown(was)}{arrow}{_shown(will)}")
    else:
        for name in ("to", "subject", "body", "text"):
            if planned.params.get(name):
                say(f"    {name}: {_shown(planned.params[name])}")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())[:200]

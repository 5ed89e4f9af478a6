"""Benchmark of 1,000 rules: loads them, and routes one event through them with all traces.

    python -m bench.rules

Both are ratios of CPU time to other work in the same process, so that a busy machine changes little: loading is
compared with PyYAML reading the same file, routing with parsing one event's JSON. The exit status is 1 if a target is
missed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from time import process_time

import yaml
from rich.console import Console
from rich.table import Table

from bridge.connector.discovery import Registry
from bridge.events import HEPPU_EVENTS, Event
from bridge.rules.load import load_or_raise
from bridge.rules.route import route
from bridge.rules.templates import condition, template
from bridge.samples import sample

RULES = 1000
TARGET_LOAD = 5.0
"""Multiple of the time that PyYAML with libyaml needs to read the file: 1 s on a machine where 0.5 s was measured."""
TARGET_ROUTE = 600.0
"""Multiple of the time of `json.loads` for one event: 2 ms on a machine where 0.9 ms was measured."""

_RULE = """
  - name: rule-{number}
    when: {event}
    where:
      event.metadata.segment: segment-{group}
      contact.phone: {{exists: true}}
    if: event.duration >= {seconds} and event.agentName != 'agent {number}'
    do:
      - use: twilio.send_sms
        delay: 5m
        cancel_on: call.completed
        with:
          body: "Hi {{{{ contact.first_name | default('there') }}}}, number {number} about {{{{ event.summary }}}}."
      - use: hubspot.log_call
"""


def thousand_rules() -> str:
    """Return a rules file in which every rule differs, spread over the seven event types."""
    rules = (
        _RULE.format(number=number, event=HEPPU_EVENTS[number % 7], group=number // 7, seconds=number % 50)
        for number in range(RULES)
    )
    return "version: 1\nrules:" + "".join(rules)


def fastest(work: Callable[[], object], rounds: int = 5, times: int = 1) -> float:
    """Return the CPU seconds of one call of `work`, the best of several rounds."""
    best = float("inf")
    for _ in range(rounds):
        started_at = process_time()
        for _ in range(times):
            work()
        best = min(best, (process_time() - started_at) / times)
    return best


def main() -> int:
    """Run the benchmark and print the table; return the exit status."""
    text, registry, now = thousand_rules(), Registry(), datetime.now(UTC)
    rules = load_or_raise(text, path="rules.yaml", registry=registry)  # imports the connectors

    def reload() -> None:
        template.cache_clear()
        condition.cache_clear()
        load_or_raise(text, path="rules.yaml", registry=registry)

    body = sample("call.busy") | {"duration": 30}
    body["metadata"]["segment"] = "segment-9"
    raw = json.dumps(body)
    reader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    rows = [
        ("load", fastest(reload), fastest(lambda: yaml.load(text, Loader=reader)), TARGET_LOAD),
        (
            "route, with trace",
            fastest(lambda: route(Event(body, "whd_1", now), rules, now), times=100),
            fastest(lambda: json.loads(raw), times=5000),
            TARGET_ROUTE,
        ),
    ]
    table = Table("1,000 rules", "CPU ms", "baseline ms", "ratio", "target")
    for label, seconds, baseline, target in rows:
        table.add_row(
            label,
            f"{seconds * 1e3:.2f}",
            f"{baseline * 1e3:.4f}",
            f"{seconds / baseline:.1f}",
            f"{target:.0f}",
        )
    Console().print(table)
    return 1 if any(seconds / baseline > target for _, seconds, baseline, target in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

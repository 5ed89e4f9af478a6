"""A thousand rules: loading them, and routing one event through them with the trace of each.

    python -m bench.rules

Both are ratios to work of the same process on the same machine, in CPU time, so a busy machine changes little:
loading to PyYAML's own reading of the same file, routing to reading one event's JSON. Exit 1 when a bar is missed.
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
from bridge.events import EVENT_NAMES, Event
from bridge.rules.load import load_or_raise
from bridge.rules.route import route
from bridge.rules.templates import condition, template
from bridge.samples import sample

RULES = 1000
BAR_LOAD = 5.0
"""Times what PyYAML with libyaml needs to read the file into plain data: 1 s where 0.5 s was measured."""
BAR_ROUTE = 600.0
"""Times what `json.loads` of one event needs: 2 ms where 0.9 ms was measured."""

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
    """A file in which every rule differs, spread over the seven events."""
    rules = (
        _RULE.format(number=number, event=EVENT_NAMES[number % 7], group=number // 7, seconds=number % 50)
        for number in range(RULES)
    )
    return "version: 1\nrules:" + "".join(rules)


def fastest(work: Callable[[], object], rounds: int = 5, times: int = 1) -> float:
    """The CPU seconds of one `work`, the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = process_time()
        for _ in range(times):
            work()
        best = min(best, (process_time() - began) / times)
    return best


def main() -> int:
    """Measure, print, and say whether the bars are held."""
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
        ("load", fastest(reload), fastest(lambda: yaml.load(text, Loader=reader)), BAR_LOAD),
        (
            "route, with trace",
            fastest(lambda: route(Event(body, "whd_1", now), rules, now), times=100),
            fastest(lambda: json.loads(raw), times=5000),
            BAR_ROUTE,
        ),
    ]
    table = Table("1,000 rules", "CPU ms", "baseline ms", "ratio", "bar")
    for what, took, baseline, bar in rows:
        table.add_row(
            what, f"{took * 1e3:.2f}", f"{baseline * 1e3:.4f}", f"{took / baseline:.1f}", f"{bar:.0f}"
        )
    Console().print(table)
    return 1 if any(took / baseline > bar for _, took, baseline, bar in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

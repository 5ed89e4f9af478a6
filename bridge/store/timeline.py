"""Timeline: describes the history of a delivery in words, for the command line and the dashboard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from bridge.clock import format_timestamp


def describe_state(delivery: Mapping[str, Any]) -> str:
    """Return a delivery's state in a few words: `succeeded: delivered`, `suppressed: frequency_capped`."""
    addition = delivery.get("message_status") or delivery.get("reason")
    return f"{delivery['state']}: {addition}" if addition else str(delivery["state"])


def timeline(delivery: Mapping[str, Any]) -> list[tuple[datetime, str]]:
    """Return what happened to a delivery (with its `attempt_history`, `follow_ups` and `audit`), in order."""
    return sorted(_entries(delivery), key=lambda entry: entry[0])


def _entries(delivery: Mapping[str, Any]) -> Iterator[tuple[datetime, str]]:
    yield delivery["created_at"], "created"
    for attempt in delivery["attempt_history"]:
        yield from _attempt_entries(attempt)
    if delivery["message_status_at"] is not None:
        yield delivery["message_status_at"], f"message status: {delivery['message_status']}"
    for item in delivery["follow_ups"]:
        yield item["created_at"], f"{item['trigger']}: {item['action']} ({item['id']})"
    for entry in delivery["audit"]:
        yield entry["created_at"], describe_audit_entry(entry)
    if delivery["finished_at"] is not None:
        # The status of a message was reported later, and has its own entry.
        yield delivery["finished_at"], describe_state({**delivery, "message_status": None})


def _attempt_entries(attempt: Mapping[str, Any]) -> Iterator[tuple[datetime, str]]:
    """Yield the start and the end of an attempt; of attempts that share a row, one entry for all of them."""
    kind = "attempt" if attempt["kind"] == "send" else "lookup"
    parts = dict.fromkeys((attempt["outcome"], attempt["reason"], attempt["detail"]))
    result = ": ".join(part for part in parts if part)
    started_at, finished_at = attempt["started_at"], attempt["finished_at"]
    if attempt["repeats"]:
        yield (
            started_at,
            f"{attempt['repeats'] + 1} {kind}s until {format_timestamp(finished_at)} UTC: {result}",
        )
        return
    yield started_at, f"{kind} {attempt['fencing_token']} started"
    if finished_at is not None:
        yield finished_at, f"{kind} {attempt['fencing_token']} finished: {result}"


def describe_audit_entry(entry: Mapping[str, Any]) -> str:
    """Return an operator action in words: `retry by ada`, `replay by dashboard (force: True)`."""
    details = format_details(entry)
    return f"{entry['action']} by {entry['actor']}" + (f" ({details})" if details else "")


def format_details(entry: Mapping[str, Any]) -> str:
    """Return the details of an audit entry on one line."""
    return ", ".join(f"{name}: {value}" for name, value in (entry["detail"] or {}).items())

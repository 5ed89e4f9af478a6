"""A delivery's story in words, for the command line and the log page alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any


def describe_state(delivery: Mapping[str, Any]) -> str:
    """A delivery's state in a word or two: `sent: delivered`, `suppressed: capped`."""
    more = delivery.get("message_status") or delivery.get("reason")
    return f"{delivery['state']}: {more}" if more else str(delivery["state"])


def timeline(delivery: Mapping[str, Any]) -> list[tuple[datetime, str]]:
    """What happened to a delivery (with its `tries` and its `audit`), in order."""
    return sorted(_happened(delivery), key=lambda entry: entry[0])


def _happened(delivery: Mapping[str, Any]) -> Iterator[tuple[datetime, str]]:
    yield delivery["created_at"], "made"
    for attempt in delivery["attempt_history"]:
        kind = "attempt" if attempt["kind"] == "send" else "lookup"
        yield attempt["started_at"], f"{kind} {attempt['fencing_token']} begins"
        if attempt["finished_at"] is not None:
            words = ": ".join(filter(None, (attempt["outcome"], attempt["reason"], attempt["detail"])))
            yield attempt["finished_at"], f"{kind} {attempt['fencing_token']} ends: {words}"
    if delivery["message_status_at"] is not None:
        yield delivery["message_status_at"], f"receipt: {delivery['message_status']}"
    for entry in delivery["audit"]:
        yield entry["created_at"], describe_audit_entry(entry)
    if delivery["finished_at"] is not None:
        yield delivery["finished_at"], describe_state(delivery)


def describe_audit_entry(entry: Mapping[str, Any]) -> str:
    """What a person did, from the audit: `retry by ada`, `replay by log page (again: True)`."""
    details = format_details(entry)
    return f"{entry['action']} by {entry['actor']}" + (f" ({details})" if details else "")


def format_details(entry: Mapping[str, Any]) -> str:
    """The details of an entry of the audit, on one line."""
    return ", ".join(f"{name}: {value}" for name, value in (entry["detail"] or {}).items())

"""Summary: whether all is well, what needs an operator and what recovered by itself, in words.

The overview page and `/api/overview` show the same sentences. The first line is the answer, and the facts below it are
those that make it true, so that "All is well" can be checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Final, Literal

from bridge.connector.provider_records import provider_label
from bridge.lifecycle import PauseCause
from bridge.store.connection_history import MAX_WAITING, ConnectionOverview, PastPause
from bridge.store.overview import MAX_FAILURES, SIGNATURE_PROBLEMS, OpenTasks, Vitals
from bridge.store.pauses import ALL_CONNECTIONS
from bridge.web.labels import reason_label
from bridge.web.times import relative_time, short_time

Kind = Literal["good", "wait", "warn", "bad"]

LATE: Final = timedelta(minutes=1)
"""Deliveries that have been due for longer are overdue."""
MAX_RECOVERED: Final = 3


@dataclass(frozen=True)
class Line:
    """A sentence, with the page that shows more. `path` is relative to the root of the service."""

    kind: Kind
    text: str
    path: str
    link: str


@dataclass(frozen=True)
class RulesState:
    """The rules of this process."""

    hash: str
    loaded_at: datetime
    enabled: int
    load_error: str | None


@dataclass(frozen=True)
class Situation:
    """What the summary is made from. None: it could not be read."""

    now: datetime
    zone: tzinfo
    rules: RulesState
    vitals: Vitals | None
    tasks: OpenTasks | None
    pauses: Sequence[PastPause] | None
    """The pauses of the span, present and past."""
    connections: Sequence[ConnectionOverview] | None


@dataclass(frozen=True)
class Summary:
    """The answer to "is all well?"."""

    kind: Kind
    title: str
    facts: Sequence[str]
    needs: Sequence[Line]
    """What an operator has to do, the most urgent first."""
    recovering: Sequence[Line]
    """What does not work now and ends by itself."""
    recovered: Sequence[str]
    """Outages of the span that ended by themselves, the longest first."""


def summarize(situation: Situation) -> Summary:
    """Return the summary of a situation."""
    needs, recovering = list(_needs(situation)), list(_recovering(situation))
    kind, title = _title(situation, needs, recovering)
    return Summary(kind, title, _facts(situation), needs, recovering, _recovered(situation))


def _title(situation: Situation, needs: Sequence[Line], recovering: Sequence[Line]) -> tuple[Kind, str]:
    vitals, pause = situation.vitals, pause_of_all(situation.pauses)
    if vitals is not None and not vitals.workers:
        return "bad", "Nothing is sent: no worker is running."
    if pause is not None:
        return "bad", "Sending is stopped."
    if needs:
        return "warn", f"{len(needs)} things need you." if len(needs) > 1 else "1 thing needs you."
    if recovering:
        return "wait", recovering[0].text.partition(". ")[0].rstrip(".") + "."
    if vitals is not None and vitals.last_event is None:
        return "good", "Ready. No event has arrived yet."
    if vitals is not None and vitals.last_event is not None and vitals.is_silence_unusual:
        silence = duration_text(situation.now - vitals.last_event.received_at)
        return "warn", f"Heppu has sent nothing for {silence}, which is unusual for this time."
    if None in (vitals, situation.tasks, situation.pauses, situation.connections):
        return "warn", "Part of the state could not be read."
    return "good", "All is well."


def pause_of_all(pauses: Sequence[PastPause] | None) -> PastPause | None:
    """Return the present pause of all connections."""
    return next(
        (item for item in pauses or () if item.connection == ALL_CONNECTIONS and item.ended_at is None), None
    )


def _facts(situation: Situation) -> list[str]:
    facts, vitals, now = [], situation.vitals, situation.now
    if vitals is not None:
        if vitals.last_event is not None:
            at = relative_time(vitals.last_event.received_at, now, situation.zone)
            facts.append(f"last event {at} ({vitals.last_event.type})")
        if vitals.last_delivery_at is not None:
            facts.append(f"last delivery {relative_time(vitals.last_delivery_at, now, situation.zone)}")
        count = len(vitals.workers)
        facts.append("no worker" if not count else f"{count} workers" if count > 1 else "1 worker")
    rules = situation.rules
    loaded = relative_time(rules.loaded_at, now, situation.zone)
    facts.append(f"{counted(rules.enabled, 'active rule')}, loaded {loaded} (version {rules.hash[:8]})")
    late = [
        item
        for item in situation.connections or ()
        if item.status.pause is None and item.waiting.oldest is not None and now - item.waiting.oldest > LATE
    ]
    if late:
        total = sum(item.waiting.due for item in late)
        oldest = min(item.waiting.oldest for item in late if item.waiting.oldest)
        verb = "is" if total == 1 else "are"
        facts.append(f"{_capped(total)} {verb} overdue, the oldest by {duration_text(now - oldest)}")
    else:
        facts.append("nothing is overdue")
    return facts


def _needs(situation: Situation) -> list[Line]:
    """Return what an operator has to do, the most urgent first."""
    lines: list[Line] = []
    now, tasks = situation.now, situation.tasks
    if tasks is not None and tasks.reviews.total:
        expiry = tasks.reviews.next_expiry
        until = f" The first expires in {duration_text(expiry - now)}." if expiry else ""
        verb = "needs" if tasks.reviews.total == 1 else "need"
        lines.append(
            Line("warn", f"{_failures(tasks.reviews.total)} {verb} review.{until}", "review", "Review")
        )
    lines += [line for item in situation.connections or () if (line := _paused_line(item, situation))]
    if situation.rules.load_error:
        lines.append(
            Line("bad", "The rules file has errors. The previous rules stay active.", "rules", "Rules")
        )
    if tasks is not None:
        lines += _failure_lines(tasks)
    if situation.vitals is not None and situation.vitals.unrouted:
        text = "Events have been waiting to be routed for more than a minute."
        lines.append(Line("bad", text, "status", "Status"))
    if situation.vitals is not None and situation.vitals.free_disk is not None:
        free = f"{situation.vitals.free_disk:.0%}"
        lines.append(
            Line("bad", f"The disk of the database is nearly full: {free} is free.", "status", "Status")
        )
    return lines


def _failure_lines(tasks: OpenTasks) -> list[Line]:
    lines = []
    if tasks.failures.total:
        groups = ", ".join(
            f"{group.total} × {provider_label(group.connection)} {reason_label(group.reason)}".rstrip()
            for group in tasks.failures.groups
        )
        text = f"{_failures(tasks.failures.total)} failed: {groups}."
        lines.append(Line("bad", text, "deliveries?state=failed&not_dismissed=yes", "Failed deliveries"))
    rejected = tasks.rejected
    if rejected.signed:
        requests = counted(rejected.signed, "request")
        text = f"{requests} that Heppu signed could not be accepted in the last 24 hours."
        lines.append(Line("warn", text, "rejected", "Rejected requests"))
    if rejected.wrong_signatures >= SIGNATURE_PROBLEMS:
        requests = counted(rejected.wrong_signatures, "request")
        text = f"{requests} had a wrong signature in the last 24 hours. Compare the signing secrets."
        lines.append(Line("warn", text, "rejected", "Rejected requests"))
    return lines


_BY_OPERATOR: Final[Mapping[str, str]] = {
    PauseCause.OPERATOR: "{name} has been paused",
    PauseCause.AUTH: "{name} has been rejecting the credentials",
    PauseCause.ACCOUNT: "{name} has had a problem with the account",
    PauseCause.TOTAL_CAP: "{name} has been at the cap on all messages",
}
_BY_ITSELF: Final[Mapping[str, str]] = {
    PauseCause.CIRCUIT_OPEN: "{name} has not responded{since}. One call is tried every 10 s.",
    PauseCause.QUOTA: "The quota of {name} has been used up{since}. Sending resumes {until}.",
    PauseCause.RATE_LIMIT: "{name} has been limiting requests{since}. Sending resumes {until}.",
}
_PAST: Final[Mapping[str, str]] = {
    PauseCause.CIRCUIT_OPEN: "{name} did not respond",
    PauseCause.QUOTA: "The quota of {name} was used up",
    PauseCause.RATE_LIMIT: "{name} was limiting requests",
}


def _paused_line(item: ConnectionOverview, situation: Situation) -> Line | None:
    pause = item.status.pause
    if pause is None or pause.is_of_all or pause.cause not in _BY_OPERATOR:
        return None
    text = _BY_OPERATOR[pause.cause].format(name=provider_label(item.name))
    if item.current is not None:
        text += f" by {item.current.actor}" if item.current.actor else ""
        text += f" since {_time(item.current.started_at, situation)}"
    text += f": {pause.reason.rstrip('.')}" if pause.reason else ""
    kind: Kind = "warn" if pause.cause == PauseCause.OPERATOR else "bad"
    return Line(kind, f"{text}. {_waiting_text(item)}", f"connections/{item.name}", item.name)


def _recovering(situation: Situation) -> list[Line]:
    lines = []
    for item in situation.connections or ():
        pause = item.status.pause
        if pause is None or pause.cause not in _BY_ITSELF:
            continue
        if item.current is None and pause.cause == PauseCause.RATE_LIMIT:
            continue  # a short pause, which is part of normal work
        since = f" since {_time(item.current.started_at, situation)}" if item.current else ""
        until = _at(pause.until, situation) if pause.until else "by itself"
        text = _BY_ITSELF[pause.cause].format(name=provider_label(item.name), since=since, until=until)
        lines.append(Line("wait", f"{text} {_waiting_text(item)}", f"connections/{item.name}", item.name))
    return lines


def _recovered(situation: Situation) -> list[str]:
    ended = [(item, item.ended_at) for item in situation.pauses or () if item.is_automatic]
    texts = [
        (end - item.started_at, past_pause_text(item, end, situation.now, situation.zone))
        for item, end in ended
        if end is not None
    ]
    return [text for _, text in sorted(texts, reverse=True)[:MAX_RECOVERED]]


def past_pause_text(item: PastPause, ended_at: datetime, now: datetime, zone: tzinfo) -> str:
    """Return what a past pause was, and what became of the deliveries that waited."""
    start, end = short_time(item.started_at, now, zone), short_time(ended_at, now, zone)
    what = _PAST.get(item.cause, "{name} was paused").format(name=provider_label(item.connection))
    text = f"{what} from {start} to {end} ({duration_text(ended_at - item.started_at)})."
    if not item.waited:
        return f"{text} Nothing was waiting."
    waited, is_one = _capped(item.waited).capitalize(), item.waited == 1
    if item.drained_at is None:
        return f"{text} {waited} waited and {'is' if is_one else 'are'} being sent."
    all_of_them = "it" if is_one else "all"
    return f"{text} {waited} waited; {all_of_them} had been processed by {short_time(item.drained_at, now, zone)}."


def _waiting_text(item: ConnectionOverview) -> str:
    due = item.waiting.due
    return (
        f"{_capped(due).capitalize()} {'is' if due == 1 else 'are'} waiting."
        if due
        else "Nothing is waiting."
    )


def _time(value: datetime, situation: Situation) -> str:
    return short_time(value, situation.now, situation.zone)


def _at(value: datetime, situation: Situation) -> str:
    """Return when something happens: `at 14:03`, `on 28 Nov at 14:03`."""
    day, _, clock = _time(value, situation).rpartition(" ")
    return f"on {day} at {clock}" if day else f"at {clock}"


def duration_text(duration: timedelta) -> str:
    """Return a duration in at most two units: `2 h 21 min`, `45 s`."""
    seconds = max(0, int(duration.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds % 86400 // 3600, seconds % 3600 // 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min")] if seconds >= 60 else [(seconds, "s")]
    first = next((index for index, (value, _) in enumerate(parts) if value), 0)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2] if value) or "0 s"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 request`, `1,234 requests`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _failures(number: int) -> str:
    return _capped(number, MAX_FAILURES).capitalize()


def _capped(number: int, maximum: int = MAX_WAITING) -> str:
    if number > maximum:
        return f"more than {maximum:,} deliveries"
    return f"{number:,} {'delivery' if number == 1 else 'deliveries'}"

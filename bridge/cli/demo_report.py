"""What `bridge demo` shows: what was sent, what reached each partner, and whether the two agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from bridge.cli.output import console, counted, say
from bridge.sandbox import RunningSandbox

if TYPE_CHECKING:
    from bridge.cli.demo_runner import SentEvent

Row = tuple[str, str, str]
"""What it is, whom it is for, what it says."""


def show(
    sandbox: RunningSandbox,
    sent: Sequence[SentEvent],
    events: Iterable[Mapping[str, Any]],
    deliveries: Iterable[Mapping[str, Any]],
    zone: str,
) -> None:
    """Everything, as tables that need no explanation."""
    rules: dict[str, list[str]] = {}
    for delivery in reversed(list(deliveries)):
        names = rules.setdefault(str(delivery["event_id"]), [])
        if delivery["rule"] not in names:
            names.append(delivery["rule"])
    fired = {str(event["conversation_id"]): rules.get(str(event["id"]), []) for event in events}
    console().print()
    console().print(_sent_table(sent, fired))
    wall = datetime.now(UTC).astimezone(ZoneInfo(zone))
    say(
        "\nThe events are dated 40 minutes back, so that the rules' delays (5 and 30 minutes) are over.\n"
        f"Nobody is written to at night: these people are in {zone}, where it is {wall:%H:%M} now.\n"
    )
    console().print(_reached_table(sandbox))


def _sent_table(sent: Sequence[SentEvent], fired: Mapping[str, Sequence[str]]) -> Table:
    table = _table("What Heppu sent", "Event", "About", "Answer", "Rules that fired")
    seen: set[str | None] = set()
    for item in sent:
        known = item.answer.conversation in seen
        seen.add(item.answer.conversation)
        if item.answer.status != 200:
            rules = "refused: nothing is stored, nothing is done"
        elif known:
            rules = "known: nothing is done twice"
        else:
            rules = ", ".join(fired.get(item.answer.conversation or "", ())) or "none"
        answer = Text(str(item.answer.status), "green" if item.as_expected else "bold red")
        table.add_row(item.name, item.who, answer, rules)
    return table


def _reached_table(sandbox: RunningSandbox) -> Table:
    rows = [
        (partner if number == 0 else "", *row)
        for partner, found in (
            ("HubSpot", _hubspot(sandbox)),
            ("Salesforce", _salesforce(sandbox)),
            ("Twilio", _twilio(sandbox)),
            ("E-mail", _mail(sandbox)),
            ("Slack", _slack(sandbox)),
        )
        for number, row in enumerate(found)
    ]
    table = _table("What reached the partners", "Partner", "What", "For", "Content")
    taken = sum(max((len(row[place]) for row in rows), default=0) + 3 for place in range(3))
    room = max(20, console().width - taken - 3)
    for *words, content in rows:
        table.add_row(*words, _short(content, room))
    return table


def _hubspot(sandbox: RunningSandbox) -> Iterator[Row]:
    people = {item.id: item.properties for item in sandbox.hubspot.contacts}

    def whom(kind: str, ident: str) -> str:
        return ", ".join(
            _name(people[one].get("firstname"), people[one].get("lastname"), people[one].get("email"))
            for one in sandbox.hubspot.associated(kind, ident, "contacts")
            if one in people
        )

    names = sorted(
        _name(one.get("firstname"), one.get("lastname"), one.get("email")) for one in people.values()
    )
    yield counted(len(people), "contact"), "", ", ".join(names)
    yield from sorted(
        ("call", whom("calls", call.id), call.properties.get("hs_call_title", ""))
        for call in sandbox.hubspot.calls
    )
    yield from sorted(
        ("note", whom("notes", chat.id), _without_tags(chat.properties.get("hs_note_body", "")))
        for chat in sandbox.hubspot.notes
    )
    for task in sandbox.hubspot.tasks:
        yield "task", whom("tasks", task.id), task.properties.get("hs_task_subject", "")


def _salesforce(sandbox: RunningSandbox) -> Iterator[Row]:
    org = sandbox.salesforce
    people = {item.id: item for item in (*org.contacts, *org.leads)}
    names = {
        ident: _name(item["FirstName"], item["LastName"], item["Email"]) for ident, item in people.items()
    }
    yield counted(len(org.contacts), "contact"), "", ", ".join(sorted(names.values()))
    yield from sorted(
        (
            f"{(task['TaskSubtype'] or 'Task').lower()} (task)",
            names.get(task["WhoId"], ""),
            task["Subject"] or "",
        )
        for task in org.tasks
    )


def _twilio(sandbox: RunningSandbox) -> Iterator[Row]:
    yield from sorted((f"text: {text.status}", text.to, text.body) for text in sandbox.twilio.messages)


def _mail(sandbox: RunningSandbox) -> Iterator[Row]:
    for mail in sandbox.email.messages:
        yield "mail", ", ".join(mail.recipients), str(mail.message["Subject"])


def _slack(sandbox: RunningSandbox) -> Iterator[Row]:
    for message in sandbox.slack.messages:
        yield "message", "the team", message.text


def differences(sandbox: RunningSandbox, deliveries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Where what the bridge says it did is not what arrived, and what did not end well; empty when all is well."""
    deliveries = list(deliveries)
    done = Counter(str(item["action"]) for item in deliveries if item["state"] == "succeeded")
    arrived = {
        "hubspot.log_call": len(sandbox.hubspot.calls),
        "hubspot.log_chat": len(sandbox.hubspot.notes),
        "hubspot.create_task": len(sandbox.hubspot.tasks),
        "salesforce.log_call": sum(task["TaskSubtype"] == "Call" for task in sandbox.salesforce.tasks),
        "salesforce.log_chat": sum(task["TaskSubtype"] != "Call" for task in sandbox.salesforce.tasks),
        "twilio.send_sms": len(sandbox.twilio.messages),
        "email.send": len(sandbox.email.messages),
        "slack.post": len(sandbox.slack.messages),
    }
    problems = [
        f"{action}: the bridge says {done[action]}, the partner has {number}"
        for action, number in arrived.items()
        if done[action] != number
    ]
    problems += [f"{action} reached nobody" for action, number in arrived.items() if number == 0]
    problems += [
        f"{item['action']} of {item['rule']} is {item['state']}: {item['detail'] or item['reason'] or '?'}"
        for item in deliveries
        if item["state"] != "succeeded"
    ]
    return problems


def conclude(problems: Sequence[str], deliveries: Sequence[Mapping[str, Any]]) -> None:
    """The outcome, and where to go from here."""
    console().print()
    if problems:
        console().print(Text("Not as it should be:", "bold red"))
        for problem in problems:
            say(f"  {problem}")
        return
    console().print(
        Text(f"All {len(deliveries)} deliveries arrived, each exactly once. ", "bold green")
        + Text("What runs here ends now and leaves nothing behind.")
    )
    say(
        "\nWhere to go next\n"
        "  bridge explain call.busy   why each rule fires for an event, or does not (.venv/bin/bridge)\n"
        "  rules.yaml                 what is done for which event: change it, then `bridge test`\n"
        "  bridge demo --keep         the same, left running, with its log page\n"
        "  README.md                  connecting Heppu, and your own accounts"
    )


def _table(title: str, *headings: str) -> Table:
    table = Table(
        title=Text(title, "bold"), title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    for heading in headings:
        last = heading == headings[-1]
        table.add_column(heading, overflow="fold" if last else "ellipsis", no_wrap=not last)
    return table


def _name(*parts: Any) -> str:
    given, family, email = parts
    return " ".join(str(part) for part in (given, family) if part) or str(email or "unnamed")


def _without_tags(html: str) -> str:
    import html as entities
    import re

    return entities.unescape(re.sub(r"<[^>]+>", " ", html))


def _short(text: str, room: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1] + "…"

"""Report of `bridge demo`: the events sent, the data each provider received, and whether the two agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from bridge.cli.output import console, echo, pluralize
from bridge.sandbox import RunningSandbox

if TYPE_CHECKING:
    from bridge.cli.demo_runner import SentEvent

Row = tuple[str, str, str]
"""Kind of record, contact or recipient, content."""


def print_tables(
    sandbox: RunningSandbox,
    sent: Sequence[SentEvent],
    events: Iterable[Mapping[str, Any]],
    deliveries: Iterable[Mapping[str, Any]],
    zone: str,
) -> None:
    """Print the events sent and the data received, as tables."""
    rules: dict[str, list[str]] = {}
    for delivery in reversed(list(deliveries)):
        names = rules.setdefault(str(delivery["event_id"]), [])
        if delivery["rule"] not in names:
            names.append(delivery["rule"])
    fired = {
        (str(event["type"]), str(event["conversation_id"])): rules.get(str(event["id"]), [])
        for event in events
    }
    console().print()
    console().print(_sent_table(sent, fired))
    local_time = datetime.now(UTC).astimezone(ZoneInfo(zone))
    echo(
        "\nThe events are dated 40 minutes ago, so the delays in the rules (5 and 30 minutes) have passed.\n"
        f"No messages are sent during quiet hours: the contacts are in {zone}, where it is {local_time:%H:%M} now.\n"
    )
    console().print(_received_table(sandbox))


def _sent_table(sent: Sequence[SentEvent], fired: Mapping[tuple[str, str], Sequence[str]]) -> Table:
    table = _table("Events sent", "Event", "Contact", "Status", "Rules that fired")
    for item in sent:
        if item.response.status != 200:
            rules = "rejected: not stored"
        elif '"duplicate"' in item.response.text:
            rules = "duplicate: not routed again"
        else:
            key = (item.response.event or "", item.response.conversation or "")
            rules = ", ".join(fired.get(key, ())) or "none"
        status = Text(str(item.response.status), "green" if item.as_expected else "bold red")
        table.add_row(item.name, item.contact, status, rules)
    return table


def _received_table(sandbox: RunningSandbox) -> Table:
    rows = [
        (provider if number == 0 else "", *row)
        for provider, records in (
            ("HubSpot", _hubspot(sandbox)),
            ("Salesforce", _salesforce(sandbox)),
            ("Twilio", _twilio(sandbox)),
            ("Email", _email(sandbox)),
            ("Slack", _slack(sandbox)),
        )
        for number, row in enumerate(records)
    ]
    table = _table("Received by the providers", "Provider", "Record", "For", "Content")
    used_width = sum(max((len(row[column]) for row in rows), default=0) + 3 for column in range(3))
    content_width = max(20, console().width - used_width - 3)
    for *cells, content in rows:
        table.add_row(*cells, _shorten(content, content_width))
    return table


def _hubspot(sandbox: RunningSandbox) -> Iterator[Row]:
    names = {
        contact.id: _name(*(contact.properties.get(field) for field in ("firstname", "lastname", "email")))
        for contact in sandbox.hubspot.contacts
    }

    def contact_names(object_type: str, record_id: str) -> str:
        associated = sandbox.hubspot.associated(object_type, record_id, "contacts")
        return ", ".join(names[contact_id] for contact_id in associated if contact_id in names)

    yield pluralize(len(names), "contact"), "", ", ".join(sorted(names.values()))
    yield from sorted(
        ("call", contact_names("calls", call.id), call.properties.get("hs_call_title", ""))
        for call in sandbox.hubspot.calls
    )
    yield from sorted(
        ("note", contact_names("notes", note.id), _without_tags(note.properties.get("hs_note_body", "")))
        for note in sandbox.hubspot.notes
    )
    for task in sandbox.hubspot.tasks:
        yield "task", contact_names("tasks", task.id), task.properties.get("hs_task_subject", "")


def _salesforce(sandbox: RunningSandbox) -> Iterator[Row]:
    org = sandbox.salesforce
    names = {
        record.id: _name(record["FirstName"], record["LastName"], record["Email"])
        for record in (*org.contacts, *org.leads)
    }
    for kind, records in (("contact", org.contacts), ("lead", org.leads)):
        if records:
            yield pluralize(len(records), kind), "", ", ".join(sorted(names[record.id] for record in records))
    yield from sorted(
        (
            f"{(task['TaskSubtype'] or 'Task').lower()} (task)",
            names.get(task["WhoId"], ""),
            task["Subject"] or "",
        )
        for task in org.tasks
    )


def _twilio(sandbox: RunningSandbox) -> Iterator[Row]:
    yield from sorted((f"SMS: {sms.status}", sms.to, sms.body) for sms in sandbox.twilio.messages)
    yield from (("SMS: received", f"from {sms.from_}", sms.body) for sms in sandbox.twilio.inbound)


def _email(sandbox: RunningSandbox) -> Iterator[Row]:
    for email in sandbox.email.messages:
        yield "email", ", ".join(email.recipients), str(email.message["Subject"])


def _slack(sandbox: RunningSandbox) -> Iterator[Row]:
    for message in sandbox.slack.messages:
        yield "message", "the team", message.text


def find_failures(sandbox: RunningSandbox, deliveries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return deliveries that did not succeed, and actions whose count differs between bridge and provider."""
    deliveries = list(deliveries)
    succeeded = Counter(str(item["action"]) for item in deliveries if item["state"] == "succeeded")
    received = {
        "hubspot.log_call": len(sandbox.hubspot.calls),
        "hubspot.log_chat": len(sandbox.hubspot.notes),
        "hubspot.create_task": len(sandbox.hubspot.tasks),
        "salesforce.log_call": sum(task["TaskSubtype"] == "Call" for task in sandbox.salesforce.tasks),
        "salesforce.log_chat": sum(task["TaskSubtype"] != "Call" for task in sandbox.salesforce.tasks),
        "twilio.send_sms": len(sandbox.twilio.messages),
        "email.send": len(sandbox.email.messages),
        "slack.post": len(sandbox.slack.messages),
    }
    failures = [
        f"{action}: the bridge reports {succeeded[action]}, the provider has {number}"
        for action, number in received.items()
        if succeeded[action] != number
    ]
    failures += [f"{action} was not received" for action, number in received.items() if number == 0]
    failures += [
        f"{item['action']} of {item['rule']} is {item['state']}: {item['detail'] or item['reason'] or '?'}"
        for item in deliveries
        if item["state"] != "succeeded"
    ]
    return failures


def print_conclusion(failures: Sequence[str], deliveries: Sequence[Mapping[str, Any]]) -> None:
    """Print the outcome and the next steps."""
    console().print()
    if failures:
        console().print(Text("Unexpected results:", "bold red"))
        for failure in failures:
            echo(f"  {failure}")
        return
    console().print(
        Text(f"All {len(deliveries)} deliveries succeeded, each exactly once. ", "bold green")
        + Text("Shutting down and cleaning up.")
    )
    echo(
        "\nNext steps\n"
        "  bridge explain call.busy   see why each rule does or does not fire (in a checkout: .venv/bin/bridge)\n"
        "  bridge demo --keep         keep the demo running, with its dashboard\n"
        "  bridge init                create rules.yaml and .env for your own accounts\n"
        "  README.md                  connect Heppu and your own accounts"
    )


def _table(title: str, *headings: str) -> Table:
    table = Table(
        title=Text(title, "bold"), title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    for heading in headings:
        last = heading == headings[-1]
        table.add_column(heading, overflow="fold" if last else "ellipsis", no_wrap=not last)
    return table


def _name(first_name: Any, last_name: Any, email: Any) -> str:
    return " ".join(str(part) for part in (first_name, last_name) if part) or str(email or "unnamed")


def _without_tags(html: str) -> str:
    import html as entities
    import re

    return entities.unescape(re.sub(r"<[^>]+>", " ", html))


def _shorten(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"

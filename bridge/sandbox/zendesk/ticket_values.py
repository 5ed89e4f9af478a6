"""The values of a ticket as Zendesk validates them: comments, references, tags and custom fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bridge.sandbox.zendesk.errors import invalid
from bridge.sandbox.zendesk.setup import PRIORITIES, STATUSES, TYPES, Record

MAX_COMMENT_BYTES = 65_535
MAX_SUBJECT_LENGTH = 150
_VOICE_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "from": str,
    "to": str,
    "recording_url": str,
    "started_at": str,
    "call_duration": int,
}
_CHOICES = {"status": STATUSES, "priority": PRIORITIES, "type": TYPES}
_REFERENCES = {"group_id": "groups", "brand_id": "brands", "ticket_form_id": "ticket_forms"}


def comment_event(values: Record) -> Record | None:
    """Return the comment of a request, as an audit has it. A request has one: a voice comment wins."""
    voice, comment = values.get("voice_comment"), values.get("comment")
    if voice is not None:
        return _voice_event(voice)
    if comment is None:
        return None
    body = comment.get("body") if isinstance(comment, dict) else None
    if not isinstance(body, str) or not body.strip():
        raise invalid("base", "Description: cannot be blank", "BlankValue")
    if len(body.encode()) > MAX_COMMENT_BYTES:
        raise invalid("comment", "Comment: is too long (maximum is 65535 characters)", "TooLong")
    public = comment.get("public", True)
    if not isinstance(public, bool):
        raise invalid("comment", "Public: must be true or false", "InvalidValue")
    return {"type": "Comment", "body": body, "public": public}


def _voice_event(voice: Any) -> Record:
    for name, kind in _VOICE_FIELDS.items():
        value = voice.get(name) if isinstance(voice, dict) else None
        if not isinstance(value, kind) or value == "":
            raise invalid("voice_comment", f"{name}: cannot be blank", "BlankValue")
    if not re.match(r"https?://", voice["recording_url"]):
        raise invalid("voice_comment", "recording_url: is not a URL", "InvalidValue")
    text = f"Call from: {voice['from']}\nCall to: {voice['to']}\n{voice.get('transcription_text') or ''}"
    return {
        "type": "VoiceComment",
        "body": text.strip(),
        "public": voice.get("public", True),
        "data": dict(voice),
    }


def apply_values(
    ticket: Record, values: Record, setup: Mapping[str, list[Record]], users: Mapping[int, Record]
) -> list[Record]:
    """Change a ticket and return the changes as events of an audit. Raise ProviderError for an invalid value.

    A custom field that does not exist is ignored, as Zendesk does.
    """
    before = dict(ticket)
    subject = values.get("subject")
    if subject is not None:
        if len(subject) > MAX_SUBJECT_LENGTH:
            raise invalid("subject", "Subject: is too long (maximum is 150 characters)", "TooLong")
        ticket["subject"] = subject
    for name, allowed in _CHOICES.items():
        if values.get(name) is not None:
            if values[name] not in allowed:
                raise invalid(name, f"{name.title()}: is not valid", "InvalidValue")
            ticket[name] = values[name]
    for name, kind in _REFERENCES.items():
        if values.get(name) is not None:
            if all(record["id"] != values[name] for record in setup[kind]):
                raise invalid(name.removesuffix("_id"), f"{name}: is invalid", "InvalidValue")
            ticket[name] = values[name]
    if (assignee := values.get("assignee_id")) is not None:
        if users.get(assignee, {}).get("role") not in ("agent", "admin"):
            raise invalid("assignee", "Assignee: is invalid", "InvalidValue")
        ticket["assignee_id"] = assignee
    if (status_id := values.get("custom_status_id")) is not None:
        status = next((item for item in setup["custom_statuses"] if item["id"] == status_id), None)
        if status is None or not status["active"]:
            raise invalid("custom_status_id", "Custom status: is invalid", "InvalidValue")
        ticket |= {"custom_status_id": status_id, "status": status["status_category"]}
    if (tags := values.get("tags")) is not None:
        ticket["tags"] = sorted({re.sub(r"\s+", "_", str(tag).strip().lower()) for tag in tags})
    if (external_id := values.get("external_id")) is not None:
        if not isinstance(external_id, str) or len(external_id) > 255:
            raise invalid("external_id", "External: is too long", "TooLong")
        ticket["external_id"] = external_id
    ticket["custom_fields"] = _custom_fields(ticket["custom_fields"], values.get("custom_fields"), setup)
    return [
        {"type": "Change", "field_name": name, "value": ticket[name], "previous_value": before[name]}
        for name in ticket
        if ticket[name] != before.get(name)
    ]


def _custom_fields(current: list[Record], changes: Any, setup: Mapping[str, list[Record]]) -> list[Record]:
    fields = {
        field["id"]: field for field in setup["ticket_fields"] if field["active"] and field["removable"]
    }
    values = {item["id"]: item["value"] for item in current}
    for item in changes or ():
        field = fields.get(item.get("id"))
        if field is None:
            continue
        value = item.get("value")
        if not _fits(field, value):
            raise invalid("base", f"{field['title']}: is not valid", "InvalidValue")
        values[field["id"]] = value
    return [{"id": field_id, "value": value} for field_id, value in values.items()]


def _fits(field: Record, value: Any) -> bool:
    options = {option["value"] for option in field.get("custom_field_options", ())}
    match field["type"]:
        case "tagger":
            return value in options
        case "multiselect":
            return isinstance(value, list) and set(value) <= options
        case "checkbox":
            return isinstance(value, bool)
        case "integer":
            return re.fullmatch(r"-?\d+", str(value)) is not None
        case "date":
            return re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)) is not None
        case _:
            return isinstance(value, str)

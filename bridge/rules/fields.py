"""Names and values that rules can use: checks of field paths, and suggestions for unknown names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from bridge.contacts.parse import Contact
from bridge.events import EVENT_TYPES, FIELD_VALUES, FIELDS, FREE_FORM
from bridge.json_values import describe_type
from bridge.rules.model import DELIVERY_FIELDS, Diagnostic, unplaced_error, unplaced_warning
from bridge.spelling import nearest

Path = tuple[str, ...]

CONTACT_FIELDS = (*(field.name for field in fields(Contact)), "country")
"""The fields of the contact; `bridge.rules.lookup` computes the country."""

_OUTCOMES = ("resolved", "ongoing", "auto_completed_inactive")
"""The values of `outcome` in Heppu's documentation, which do not exclude others."""

_FIELD_ALIASES = {
    "name": "event.event",
    "type": "event.event",
    "id": "event.webhookId",
    "contact": "contact",
    "phone": "contact.phone",
    "email": "contact.email",
    "customer": "event.callMetadata.customer",
    "feedback": "event.chatMetadata.feedback",
    "rating": "event.chatMetadata.feedback.rating",
    "comment": "event.chatMetadata.feedback.comment",
}
"""Common guess for a field's name -> the field."""

PATTERNS: Mapping[str, tuple[str, ...]] = {
    kind: tuple(name for name in EVENT_TYPES if name.startswith(kind[:-1])) for kind in ("call.*", "chat.*")
}
"""Pattern of `when` -> the event types that it stands for."""

ROOTS = ("event", "contact", "now", "delivery", "details", "results")
DETAIL_FIELDS: Mapping[str, str] = {
    "transcript": "what was said, one line per turn (`Agent: ...`)",
    "recordingUrl": "address of the recording",
    "summary": "summary of the conversation",
    "status": "state of the call, such as `completed`",
    "direction": "`inbound` or `outbound`",
    "duration": "length in seconds",
    "startedAt": "when it started",
    "endedAt": "when it ended",
    "failureReason": "why the call failed",
    "phoneNumber": "number of the contact",
    "agent": "the agent: `details.agent.id`, `details.agent.name`",
    "metadata": "data that the caller of Heppu's API has set",
    "id": "ID of the call at Heppu",
}
"""Fields of `details` that Heppu documents for calls, `recordingUrl` apart, and what they contain."""


def expand_event_pattern(name: str) -> tuple[str, ...]:
    """Return the event types that a name or pattern stands for. Empty if it is unknown."""
    return PATTERNS.get(name) or ((name,) if name in EVENT_TYPES else ())


def check_path(path: Path, event_types: Collection[str], roots: Collection[str]) -> Diagnostic | None:
    """Return the error in a dotted name, if any. It must start with one of `roots` and fit the event types."""
    return _check_path(path, tuple(sorted(event_types)) or EVENT_TYPES, tuple(sorted(roots)))


@lru_cache(maxsize=4096)
def _check_path(path: Path, event_types: tuple[str, ...], roots: tuple[str, ...]) -> Diagnostic | None:
    root, rest = path[0], path[1:]
    if root not in roots:
        text = f"`{root}` is not available here" if root in ROOTS else f"unknown name `{root}`"
        hint = _NOT_LATE if root in ("details", "results") else _root_hint(root, roots)
        return unplaced_error(text, hint)
    if root == "details":
        return _check_detail(rest)
    if root == "results":
        return _check_result(rest)
    if root == "event":
        return _check_event_path(rest, event_types)
    if root == "now":
        text, hint = "`now` has no field `{}`", "write {{ now | local('%H:%M') }}"
        return unplaced_error(text.format(rest[0]), hint) if rest else None
    known = CONTACT_FIELDS if root == "contact" else tuple(DELIVERY_FIELDS)
    if not rest:
        hint = f"write one of its fields, such as `{root}.{known[0]}`"
        return unplaced_error(f"`{root}` is a record, not a single value", hint)
    if rest[0] not in known:
        suggestion = nearest(rest[0], known, cutoff=0.65)
        hint = f"did you mean `{root}.{suggestion}`?" if suggestion else f"its fields are {', '.join(known)}"
        if root == "contact" and not suggestion:
            hint += "; they come from the event, not from the CRM"
            hint = _OWNER_HINT if rest[0] == "owner" else hint
        return unplaced_error(f"`{root}` has no field `{rest[0]}`", hint)
    if len(rest) > 1:
        return unplaced_error(f"`{root}.{rest[0]}` has no fields of its own")
    return None


_NOT_LATE = (
    "they are known after a rule has fired: write them in params under `with:`, not where the bridge decides "
    "whether, to whom and over which connection it sends"
)


def _check_result(rest: Path) -> Diagnostic | None:
    if len(rest) == 3 and rest[2] == "id":
        return None
    name = ".".join(rest[:2]) if len(rest) > 1 else "zendesk.create_ticket"
    return unplaced_error("a result is the ID that an action returned", f"write `results.{name}.id`")


def _check_detail(rest: Path) -> Diagnostic | None:
    if not rest:
        return unplaced_error("`details` is a record, not a single value", "write `details.transcript`")
    if rest[0] in DETAIL_FIELDS:
        return None
    suggestion = nearest(rest[0], DETAIL_FIELDS)
    if suggestion:
        return unplaced_error(f"`details` has no field `{rest[0]}`", f"did you mean `details.{suggestion}`?")
    text = f"Heppu does not document `{rest[0]}` in the details of a conversation"
    return unplaced_warning(text, "if it is missing there, it is missing here")


def _root_hint(root: str, roots: tuple[str, ...]) -> str:
    owner = next((name for name in ("contact", "event") if name in roots and root in _fields_of(name)), None)
    if owner:
        return f"did you mean `{owner}.{root}`?"
    suggestion = nearest(root, roots)
    if suggestion:
        return f"did you mean `{suggestion}`?"
    return f"the available names are {', '.join(f'`{name}`' for name in roots)}; put a string in quotes"


def _fields_of(root: str) -> tuple[str, ...]:
    if root == "contact":
        return CONTACT_FIELDS
    return tuple({path.split(".")[0]: None for name in EVENT_TYPES for path in FIELDS[name]})


def _check_event_path(rest: Path, event_types: tuple[str, ...]) -> Diagnostic | None:
    if not rest:
        return None
    dotted = ".".join(rest)
    if any(name not in FIELDS for name in event_types):
        return None  # an event type that Heppu does not document has fields of its own
    documented = {path: kind for name in event_types for path, kind in FIELDS[name].items()}
    if dotted in documented:
        return None
    elsewhere = [name for name in EVENT_TYPES if dotted in FIELDS[name]]
    if elsewhere:
        return unplaced_warning(
            f"`event.{dotted}` is not documented for {', '.join(event_types)}",
            f"it is a field of {', '.join(elsewhere)}",
        )
    top_level = {path for path in documented if "." not in path}
    if rest[0] not in top_level:
        return _unknown_top_level(rest, top_level, documented)
    if rest[0] not in FREE_FORM:
        return _no_subfields(rest[0], documented[rest[0]])
    return _check_free_form(rest, documented)


def _no_subfields(dotted: str, kind: str) -> Diagnostic:
    return unplaced_error(f"`event.{dotted}` is {_TYPE_NAMES[kind]} and has no fields of its own")


_OWNER_HINT = "only the CRM knows the owner of a contact: for an action of the CRM, write `owner: contact`"


def _unknown_top_level(rest: Path, top_level: set[str], documented: Collection[str]) -> Diagnostic:
    text = f"`event` has no documented field `{rest[0]}`"
    if rest[0] in _FIELD_ALIASES:
        return unplaced_error(text, f"did you mean `{'.'.join((_FIELD_ALIASES[rest[0]], *rest[1:]))}`?")
    suggestion = nearest(rest[0], sorted(top_level), cutoff=0.75)
    if suggestion:
        return unplaced_error(text, f"did you mean `{'.'.join(('event', suggestion, *rest[1:]))}`?")
    deeper = _deeper(rest, documented)
    if deeper:
        return unplaced_warning(text, f"did you mean `event.{deeper}`?")
    own = " or ".join(f"`event.{name}`" for name in ("metadata", "callMetadata.custom") if name in documented)
    hint = "if an event does not have the field, the rule treats it as missing"
    return unplaced_warning(text, f"data of your own is in {own}; {hint}" if own else hint)


def _deeper(rest: Path, documented: Collection[str]) -> str | None:
    """Return the documented field with the same last name further below, if there is exactly one."""
    below = [path for path in documented if path.endswith(f".{rest[-1]}") and path.count(".") >= len(rest)]
    same = [path for path in below if len(rest) == 1 or path.startswith(f"{rest[0]}.")]
    return same[0] if len(rest) <= 2 and len(same) == 1 else None


def _check_free_form(rest: Path, documented: dict[str, str]) -> Diagnostic | None:
    """Check a path below a free-form object: any name is valid, but one close to a documented name is suspicious."""
    for depth in range(1, len(rest)):
        parent = ".".join(rest[:depth])
        if documented.get(parent, "object") != "object":
            return _no_subfields(parent, documented[parent])
        siblings = sorted(
            path.rsplit(".", 1)[1]
            for path in documented
            if path.count(".") == depth and path.startswith(f"{parent}.")
        )
        if rest[depth] in siblings:
            continue
        similar = nearest(rest[depth], siblings, cutoff=0.8)
        if similar is None:
            deeper = _deeper(rest, documented)
            if deeper is None:
                return None
            text = f"`event.{'.'.join(rest)}` is not a documented field"
            return unplaced_warning(text, f"did you mean `event.{deeper}`?")
        suggestion = ".".join(("event", *rest[:depth], similar, *rest[depth + 1 :]))
        text = f"`event.{'.'.join(rest)}` is not a documented field"
        return unplaced_warning(text, f"did you mean `{suggestion}`?")
    return None


_TYPE_NAMES = {
    "string": "a string",
    "number": "a number",
    "boolean": "a boolean",
    "object": "an object",
    "array": "a list",
    "timestamp": "a timestamp",
}
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "number": (int, float),
    "timestamp": (str,),
}


_CONTACT_FORMS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "email": (re.compile(r"[^@\s]+@[^@\s]+"), 'for a part of an address, write `{ends_with: "@acme.com"}`'),
    "phone": (
        re.compile(r"\+\d+"),
        'write it with + and the country code, without spaces; for a part, `{starts_with: "+1"}`',
    ),
    "country": (re.compile(r"[A-Z]{2}"), "write the two letters of the country in capitals, such as `US`"),
}
"""Field of `contact` -> the form of its values, and what to do about another value."""


def _check_contact_value(rest: Path, value: str) -> Diagnostic | None:
    form, hint = _CONTACT_FORMS.get(rest[0] if rest else "", (None, ""))
    if form is None or form.fullmatch(value):
        return None
    return unplaced_warning(f"`contact.{rest[0]}` is never `{value[:40]}`", hint)


def check_value(path: Path, value: Any, event_types: Collection[str]) -> Diagnostic | None:
    """Return the error in comparing the field at `path` with `value`: a different type or an undocumented value."""
    if path[0] == "contact":
        if isinstance(value, str):
            return _check_contact_value(path[1:], value)
        text = f"`{'.'.join(path)}` is a string, but this value is {describe_type(value)}"
        return unplaced_error(text, "put it in quotes")
    dotted = ".".join(path[1:])
    documented = [FIELDS.get(name, {}) for name in event_types or EVENT_TYPES]
    kind = next((kinds[dotted] for kinds in documented if dotted in kinds), "")
    expected = _PYTHON_TYPES.get(kind)
    if expected is None:
        return None
    if not isinstance(value, expected) or (kind == "number" and isinstance(value, bool)):
        text = f"`event.{dotted}` is {_TYPE_NAMES[kind]}, but this value is {describe_type(value)}"
        unplaced = unplaced_warning if "." in dotted else unplaced_error
        return unplaced(text, _TYPE_HINTS[kind](value))
    spelling = next((word for word in _OUTCOMES if str(value).lower() == word != value), None)
    if dotted == "outcome" and spelling:
        return unplaced_warning(f"Heppu writes `{spelling}`, not `{str(value)[:40]}`", f"write `{spelling}`")
    values = FIELD_VALUES.get(dotted)
    if values is not None and isinstance(value, str) and value not in values:
        suggestion = nearest(value, values)
        hint = f"did you mean `{suggestion}`?" if suggestion else f"Heppu documents {', '.join(values)}"
        several = [word for word in re.split(r"\s+or\s+|\s*[,|/]\s*", value[:100]) if word]
        if len(several) > 1 and set(several) <= set(values):
            hint = f"write several as a list: `[{', '.join(several)}]`"
        return unplaced_warning(f"`{value[:40]}` is not a documented value of `event.{dotted}`", hint)
    return None


def check_truth_test(path: Path, event_types: Collection[str]) -> Diagnostic | None:
    """Return the error in using the field at `path` as true or false, if it is something else."""
    name = ".".join(path)
    documented = {FIELDS.get(name, {}).get(".".join(path[1:]), "") for name in event_types or EVENT_TYPES}
    kinds = documented - {""} if path[0] == "event" else {"string"}
    hint = f"write `{name} is filled`"
    if kinds == {"boolean"}:
        return None
    if kinds:
        kind = _TYPE_NAMES[next(iter(kinds))]
        return unplaced_error(f"`{name}` is {kind}, and a condition must be true or false", hint)
    return unplaced_warning(f"this fails if `{name}` is missing or not true or false", hint)


_BOOLEAN_SPELLINGS = {"true": ("true", "yes", "y", "on", "1"), "false": ("false", "no", "n", "off", "0")}


def boolean_hint(value: Any) -> str:
    """Return the hint for a value that must be a boolean."""
    boolean = next((word for word, same in _BOOLEAN_SPELLINGS.items() if str(value).lower() in same), None)
    rule = "only `true` and `false` are booleans, without quotes"
    return f"write `{boolean}`: {rule}" if boolean else rule


def number_hint(value: Any) -> str:
    """Return the hint for a value that must be a number."""
    digits = isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?", value)
    return "write it without quotes" if digits else "write a number in digits, such as 60"


_TYPE_HINTS: dict[str, Callable[[Any], str]] = {
    "string": lambda _: "put it in quotes",
    "boolean": boolean_hint,
    "number": number_hint,
    "timestamp": lambda _: "put it in quotes",
}

"""Which names a rule can use, and what was probably meant by one that does not exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any, Literal

from bridge.events import EVENT_NAMES, FIELDS, FREE_FORM, Contact
from bridge.rules.model import DELIVERY_FIELDS

Path = tuple[str, ...]
Complaint = tuple[Literal["error", "warning"], str, str]
"""Level, text and hint."""

CONTACT_FIELDS = tuple(field.name for field in fields(Contact))

_VALUES = {
    "direction": ("inbound", "outbound"),
    "conversationType": ("phone", "chat"),
    "status": ("completed", "failed", "busy", "no_answer"),
    "event": EVENT_NAMES,
}
"""The values that Heppu documents for fields that have a fixed set."""

_MEANT = {
    "name": "event.event",
    "type": "event.event",
    "id": "event.webhookId",
    "contact": "contact",
    "phone": "contact.phone",
    "email": "contact.email",
    "customer": "event.callMetadata.customer",
}
"""What people write for a field that is called otherwise."""

_LONGEST_WORD = 60


def nearest(word: str, known: Iterable[str], cutoff: float = 0.7) -> str | None:
    """The known name that `word` is probably a misspelling of; capitals, `_` and `-` do not count."""
    if len(word) > _LONGEST_WORD:
        return None
    best, best_ratio = None, cutoff
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(_plain(word))
    for name in known:
        matcher.set_seq1(_plain(name))
        if matcher.real_quick_ratio() >= best_ratio and matcher.quick_ratio() >= best_ratio:
            ratio = matcher.ratio()
            if ratio >= best_ratio and (best is None or ratio > best_ratio):
                best, best_ratio = name, ratio
    return best


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint for a misspelt name: the nearest one, or all of them when they are few."""
    names = list(known)
    found = nearest(word, names)
    if found:
        return f"did you mean `{found}`?"
    return "one of: " + ", ".join(f"`{name}`" for name in names) if 0 < len(names) <= 12 else ""


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def check_path(path: Path, events: Collection[str], names: Collection[str]) -> Complaint | None:
    """What is wrong with a dotted name in a rule for these events, where only `names` can begin one."""
    return _checked(path, tuple(sorted(events)) or EVENT_NAMES, tuple(sorted(names)))


@lru_cache(maxsize=4096)
def _checked(path: Path, events: tuple[str, ...], names: tuple[str, ...]) -> Complaint | None:
    root, rest = path[0], path[1:]
    if root not in names:
        return "error", f"no name `{root}` here", _root_hint(root, names)
    if root == "event":
        return _event_path(rest, events)
    if root == "now":
        return (
            ("error", f"`now` has no field `{rest[0]}`", "write {{ now | local('%H:%M') }}") if rest else None
        )
    known = CONTACT_FIELDS if root == "contact" else tuple(DELIVERY_FIELDS)
    if not rest:
        hint = f"write one of its fields, such as `{root}.{known[0]}`"
        return "error", f"`{root}` is a whole record", hint
    if rest[0] not in known:
        found = nearest(rest[0], known, cutoff=0.6)
        hint = f"did you mean `{root}.{found}`?" if found else f"it has: {', '.join(known)}"
        return "error", f"`{root}` has no field `{rest[0]}`", hint
    if len(rest) > 1:
        return "error", f"`{root}.{rest[0]}` has no fields of its own", ""
    return None


def _root_hint(root: str, names: tuple[str, ...]) -> str:
    owner = next((name for name in ("contact", "event") if name in names and root in _fields_of(name)), None)
    if owner:
        return f"did you mean `{owner}.{root}`?"
    found = nearest(root, names)
    if found:
        return f"did you mean `{found}`?"
    return f"the names are {', '.join(f'`{name}`' for name in names)}; a text needs quotes"


def _fields_of(root: str) -> tuple[str, ...]:
    if root == "contact":
        return CONTACT_FIELDS
    return tuple({path.split(".")[0]: None for name in EVENT_NAMES for path in FIELDS[name]})


def _event_path(rest: Path, events: tuple[str, ...]) -> Complaint | None:
    if not rest:
        return None
    dotted = ".".join(rest)
    documented = {path: kind for name in events for path, kind in FIELDS[name].items()}
    if dotted in documented:
        return None
    elsewhere = [name for name in EVENT_NAMES if dotted in FIELDS[name]]
    if elsewhere:
        return (
            "warning",
            f"{', '.join(events)}: no `event.{dotted}` is documented",
            f"it is a field of {', '.join(elsewhere)}",
        )
    top = {path for path in documented if "." not in path}
    if rest[0] not in top:
        return _unknown_top(rest, top)
    if rest[0] not in FREE_FORM:
        return "error", f"`event.{rest[0]}` is {_WORDS[documented[rest[0]]]} and has no fields of its own", ""
    return _free_form(rest, documented)


def _unknown_top(rest: Path, top: set[str]) -> Complaint:
    text = f"`event` has no documented field `{rest[0]}`"
    if rest[0] in _MEANT:
        return "error", text, f"did you mean `{'.'.join((_MEANT[rest[0]], *rest[1:]))}`?"
    found = nearest(rest[0], sorted(top), cutoff=0.75)
    if found:
        return "error", text, f"did you mean `{'.'.join(('event', found, *rest[1:]))}`?"
    return "warning", text, "it counts as missing where the event does not have it"


def _free_form(rest: Path, documented: dict[str, str]) -> Complaint | None:
    """Below the free-form objects anything may stand; a name close to a documented one is probably a mistake."""
    for depth in range(1, len(rest)):
        parent = ".".join(rest[:depth])
        if documented.get(parent, "object") != "object":
            return (
                "error",
                f"`event.{parent}` is {_WORDS[documented[parent]]} and has no fields of its own",
                "",
            )
        siblings = sorted(
            path.rsplit(".", 1)[1]
            for path in documented
            if path.count(".") == depth and path.startswith(f"{parent}.")
        )
        if rest[depth] in siblings:
            continue
        found = nearest(rest[depth], siblings, cutoff=0.8)
        if found is None:
            return None
        meant = ".".join(("event", *rest[:depth], found, *rest[depth + 1 :]))
        return "warning", f"`event.{'.'.join(rest)}` is not a documented field", f"did you mean `{meant}`?"
    return None


_WORDS = {
    "string": "a text",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
}
_KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "boolean": (bool,), "number": (int, float)}


def check_value(path: Path, value: Any, events: Collection[str]) -> Complaint | None:
    """What is wrong with comparing the field at `path` with `value`: another type, or a value that never comes."""
    if path[0] == "contact":
        if isinstance(value, str):
            return None
        return "error", f"`{'.'.join(path)}` is a text, and this is {kind_of(value)}", "put it in quotes"
    dotted = ".".join(path[1:])
    kind = next((FIELDS[name][dotted] for name in events or EVENT_NAMES if dotted in FIELDS[name]), None)
    wanted = _KINDS.get(kind or "")
    if wanted is None:
        return None
    if not isinstance(value, wanted) or (kind == "number" and isinstance(value, bool)):
        text = f"`event.{dotted}` is {_WORDS[kind or '']}, and this is {kind_of(value)}"
        hint = _HINTS[kind or ""](value)
        return ("warning" if "." in dotted else "error"), text, hint
    values = _VALUES.get(dotted)
    if values is not None and isinstance(value, str) and value not in values:
        found = nearest(value, values)
        hint = f"did you mean `{found}`?" if found else f"Heppu documents: {', '.join(values)}"
        return "warning", f"`event.{dotted}` is never documented to be `{value[:40]}`", hint
    return None


_TRUTH = {"true": ("true", "yes", "y", "on", "1"), "false": ("false", "no", "n", "off", "0")}


def truth_hint(value: Any) -> str:
    """What to write where true or false is needed and this stands."""
    meant = next((word for word, same in _TRUTH.items() if str(value).lower() in same), None)
    rule = "only `true` and `false` are yes and no here, without quotes"
    return f"write `{meant}`: {rule}" if meant else rule


def number_hint(value: Any) -> str:
    """What to write where a number is needed and this stands."""
    digits = isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?", value)
    return "write it without quotes" if digits else "a number is needed, in digits: 60"


_HINTS: dict[str, Callable[[Any], str]] = {
    "string": lambda _: "put it in quotes",
    "boolean": truth_hint,
    "number": number_hint,
}


def kind_of(value: Any) -> str:
    """The type of a JSON value in the words of people."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list | tuple) else "an object"

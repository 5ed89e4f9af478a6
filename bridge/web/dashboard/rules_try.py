"""Try a change: the problems of a changed rules file and its plan over stored events, or the forecast of one event.

Nothing is stored and nothing is sent. The dashboard never writes the file: there is one place where rules come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from bridge.clock import parse_timestamp
from bridge.events import EVENT_TYPES
from bridge.rules.sources import split_sources
from bridge.rules.summary import display_files, displayed_name
from bridge.store.rule_versions import show_version
from bridge.web.admin_service import AdminService
from bridge.web.dashboard.page import Form, form, page, page_query, render_page
from bridge.web.frame import zone_of
from bridge.web.labels import action_label, reason_label
from bridge.web.query_params import check_id
from bridge.web.rules_trial import MAX_TEXT, TrialFailed, all_files, changed_files
from bridge.web.validation import InvalidParameter
from bridge.web.word_diff import Piece, word_diff

MAX_BODY: Final = 3 * MAX_TEXT + 16 * 1024
"""Bytes of the form: a browser writes up to three for a byte of the file."""
MAX_MESSAGE_PARAMS: Final = 12
SPANS: Final = {"1d": "last 24 hours", "7d": "last 7 days", "30d": "last 30 days"}
"""Periods that a plan can cover."""
_DAYS: Final = {"1d": 1, "7d": 7, "30d": 30}
_CHANNELS: Final = {"sms": "Texts", "whatsapp": "WhatsApp messages", "email": "Emails", "call": "Calls"}


def routes(service: AdminService) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        page("/rules/try", partial(_show, service)),
        form("/rules/try", partial(_try, service), max_body=MAX_BODY),
    ]


@dataclass(frozen=True)
class _Input:
    """What the form contains."""

    file: str
    text: str
    span: str = "7d"
    event: str = ""
    phone: str = ""
    at: str = ""


@dataclass(frozen=True)
class PlanTotal:
    """A row of the totals: a number under the active rules and under the changed ones."""

    name: str
    old: int
    new: int


@dataclass(frozen=True)
class Example:
    """One delivery that would be different."""

    kind: str
    title: str
    event_type: str
    event_id: str
    at: datetime | None
    rule: str
    detail: str
    """Why it was not sent before, or would not be sent any more."""
    changes: Sequence[tuple[str, Sequence[Piece]]]
    """Name of a parameter and its pieces."""


def _show(service: AdminService, request: Request) -> Response:
    """Show the form, filled with a file: as it is active, as an earlier version has it, or with its errors on disk."""
    query = page_query(request)
    files = _texts(service.rules.current.text, service.rules.current.path)
    name = next((file for file in files if file == query.get("file")), next(iter(files)))
    text = files[name]
    if query.get("version"):
        version = show_version(service.database, check_id(query["version"]))
        text = _texts(version.text, service.rules.current.path).get(name, text)
    elif query.get("from") == "disk":
        name, text = _broken_file(service, list(files)) or (name, text)
    return _page(service, request, _Input(name, text, event=query.get("event", "")))


def _broken_file(service: AdminService, names: Sequence[str]) -> tuple[str, str] | None:
    """Return name and text of the first file on disk with an error; None if it is not one of these files."""
    paths = [item.path for item in service.rules.diagnostics if item.level == "error"]
    for path in paths:
        name = displayed_name(path, names)
        if name is not None and path in service.rules.texts:
            return name, service.rules.texts[path]
    return None


def _texts(text: str, path: str) -> dict[str, str]:
    """Return the texts of the files of a set, by name."""
    return {file.name: str(file.content) for file in split_sources(text, Path(path).name)}


def _try(service: AdminService, request: Request, fields: Form) -> Response:
    """Run what the pressed button names, and show the form again with the result."""
    rules = service.rules.current
    given = _Input(
        fields.get("file") or next(iter(display_files(rules))).name,
        # Browsers send line breaks as CRLF.
        (fields.get("text") or "").replace("\r\n", "\n"),
        fields.get("span", "7d") if fields.get("span") in SPANS else "7d",
        (fields.get("event") or "").strip(),
        (fields.get("phone") or "").strip(),
        (fields.get("at") or "").strip(),
    )
    try:
        files = changed_files(rules, given.file, given.text) if given.text else all_files(rules)
        if fields.get("action") == "download":
            return _download(given)
        result = _run(service, request, given, files, fields.get("action") or "plan")
    except (InvalidParameter, TrialFailed) as error:
        return _page(service, request, given, problem=str(error), status=409)
    return _page(service, request, given, result=result)


def _download(given: _Input) -> Response:
    """Return the file as it is in the form, for the operator to save on the server."""
    name = given.file.rpartition("/")[2]
    headers = {"Content-Disposition": f'attachment; filename="{_plain(name)}"'}
    return Response(given.text.encode("utf-8", "replace"), media_type="application/yaml", headers=headers)


def _plain(name: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "_" for char in name)


def _run(
    service: AdminService, request: Request, given: _Input, files: Sequence[Mapping[str, str]], action: str
) -> dict[str, Any]:
    if service.trial is None:
        raise TrialFailed("this service cannot try rules: use `bridge plan` and `bridge explain`")
    common = {"files": files}
    if action == "explain":
        if not given.event:
            raise InvalidParameter("enter the ID of a stored event, or choose a sample")
        at = _instant(given.at, request) if given.at else None
        changes = {"metadata.contactPhone": given.phone} if given.phone else {}
        return service.trial.run(
            common
            | {"mode": "explain", "event": given.event, "changes": changes, "at": at and at.isoformat()}
        )
    if action == "check":
        return service.trial.run(common | {"mode": "check"})
    since = service.database.clock.now() - timedelta(days=_DAYS[given.span])
    baseline = service.rules.current.text
    return service.trial.run(common | {"mode": "plan", "baseline": baseline, "since": since.isoformat()})


def _instant(text: str, request: Request) -> datetime:
    """Return the time of a `datetime-local` field, which is in the reader's zone."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidParameter("enter the time as 2026-03-02T21:30") from None
    return value if value.tzinfo else value.replace(tzinfo=zone_of(request))


def _page(
    service: AdminService,
    request: Request,
    given: _Input,
    *,
    result: Mapping[str, Any] | None = None,
    problem: str = "",
    status: int = 200,
) -> Response:
    rules = service.rules.current
    plan = result.get("plan") if result else None
    forecast = result.get("forecast") if result else None
    return render_page(
        request,
        service,
        "rules_try.html",
        title="Try a change",
        status=status,
        given=given,
        files=[file.name for file in display_files(rules)],
        spans=SPANS,
        samples=EVENT_TYPES,
        is_changed=given.text not in {str(file.content) for file in display_files(rules)},
        rules_path=service.rules.path,
        problem=problem,
        result={"tests": None} | dict(result) if result else None,
        plan=plan,
        sentence=_sentence(plan) if plan else "",
        counts=_counts(plan) if plan else [],
        totals=_totals(plan) if plan else [],
        examples=[_example(item) for item in plan["samples"]] if plan else [],
        forecast=forecast,
        outcomes=[_outcome(item) for item in forecast["deliveries"]] if forecast else [],
    )


def _sentence(plan: Mapping[str, Any]) -> str:
    """Return the result of a plan in one sentence."""
    number = plan["differences"]
    if not plan["events_compared"]:
        return "There are no events in this period, so nothing was compared."
    if not number:
        return "No delivery would be different."
    kinds = {kind: sum(row[kind] for row in _counts(plan)) for kind in ("added", "removed", "changed")}
    parts = [
        f"{count:,} {word}"
        for count, word in (
            (kinds["added"], "more"), (kinds["removed"], "fewer"), (kinds["changed"], "changed")
        )
        if count
    ]  # fmt: skip
    noun = "delivery" if number == 1 else "deliveries"
    return f"{number:,} {noun} would be different: {', '.join(parts)}."


def _counts(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"rule": rule, **{kind: counts.get(kind, 0) for kind in ("added", "removed", "changed")}}
        for rule, counts in plan["rules"].items()
    ]


def _totals(plan: Mapping[str, Any]) -> list[PlanTotal]:
    """Return the totals that at least one of the two versions has."""
    old, new = plan["old"], plan["new"]
    rows = [("Deliveries", old["deliveries"], new["deliveries"])]
    for channel in sorted({*old["messages"], *new["messages"]}):
        rows.append((_CHANNELS.get(channel, channel), *_pair(old, new, "messages", channel)))
        if channel == "sms":
            rows.append(("Segments of texts, as billed", old["segments"], new["segments"]))
    for name in sorted({*old["requests"], *new["requests"]}):
        rows.append((f"Requests to {name}, at most", *_pair(old, new, "requests", name)))
    for reason in sorted({*old["held_back"], *new["held_back"]}):
        label = "Cancelled" if reason == "cancelled" else f"Suppressed: {reason_label(reason)}"
        rows.append((label, *_pair(old, new, "held_back", reason)))
    for name in sorted({*old["stopped"], *new["stopped"]}):
        rows.append((f"Waiting: {name} paused by caps.total", *_pair(old, new, "stopped", name)))
    rows.append(("Failed: cannot be rendered", old["broken"], new["broken"]))
    return [PlanTotal(*row) for row in rows if row[1] or row[2]]


def _pair(old: Mapping[str, Any], new: Mapping[str, Any], group: str, name: str) -> tuple[int, int]:
    return old[group].get(name, 0), new[group].get(name, 0)


def _example(item: Mapping[str, Any]) -> Example:
    delivery, kind = item["delivery"], item["kind"]
    if kind == "changed":
        pairs = [
            (name, _words_of(name, pair[0]), _words_of(name, pair[1]))
            for name, pair in item["changes"].items()
        ]
        changes = [(name, word_diff(old, new)) for name, old, new in pairs]
    else:
        side: Literal["added", "removed"] = "added" if kind == "added" else "removed"
        params = [
            (name, value) for name, value in delivery["params"].items() if value not in (None, "", [], {})
        ]
        changes = [
            (name, [Piece(side, piece.text) for piece in word_diff(value, value)])
            for name, value in params[:MAX_MESSAGE_PARAMS]
        ]
    return Example(
        kind,
        f"{action_label(delivery['action'], delivery['connection'])}"
        + (f" to {item['contact']}" if item["contact"] else ""),
        item["event_type"],
        item["event_id"] if item["event_id"].startswith("evt_") else "",
        parse_timestamp(item["event_received_at"]),
        delivery["rule"],
        item["detail"],
        changes,
    )


def _words_of(name: str, value: Any) -> Any:
    """Return a changed value; a time to the second, in UTC."""
    instant = parse_timestamp(value) if name == "at" else None
    return value if instant is None else f"{instant:%Y-%m-%d %H:%M:%S} UTC"


_OUTCOMES: Final = {
    "go": ("Would be sent", "good"),
    "suppress": ("Would be suppressed", "hold"),
    "cancel": ("Would be cancelled", "hold"),
    "failed": ("Would fail", "bad"),
    "wait": ("Would wait", "wait"),
}


def _outcome(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a planned delivery of a forecast with its words."""
    text, css_class = _OUTCOMES[item["outcome"]]
    if item["outcome"] == "go" and item["channel"] is None:
        text = "Would be done"
    return {
        **item,
        "label": text,
        "css_class": css_class,
        "title": action_label(item["action"], item["connection"]),
        "when": parse_timestamp(item["at"]),
        "shown_params": [
            (name, word_diff(value, value))
            for name, value in item["params"].items()
            if value not in (None, "", [], {})
        ],
    }

"""Actions that log calls and chats on the contact's timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from bridge.connector import (
    BatchItem,
    BatchResult,
    CallParams,
    ChatParams,
    ContactRef,
    Context,
    items_by_conversation,
    param,
    per_conversation,
)

from .account import BATCH_SIZE, Account
from .call_outcomes import DEFAULT_OUTCOMES
from .fields import (
    MAX_BODY_LENGTH,
    OWNER,
    fits,
    split_to_fit,
    to_fitting_html,
    to_html,
    to_milliseconds,
    to_strings,
)
from .params import DEAL, TICKET, check_ids
from .scopes import CONTACTS
from .settings import connector
from .timeline import Draft, write_batch

CALL_STATUSES = {
    "completed": "COMPLETED",
    "failed": "FAILED",
    "busy": "BUSY",
    "no_answer": "NO_ANSWER",
    "cancelled": "CANCELED",
}
_OUTCOME_OF_STATUS = {"completed": "connected", "busy": "busy", "no_answer": "no_answer"}
_HEADING_ROOM = 1_500
"""Characters of a note with a part of a transcript for what stands above it."""
_ON_MISSING = param(
    "create", "If HubSpot has no such contact: `create` one, or `skip` logging.", example="skip"
)


class LogCallParams(CallParams):
    """A phone call to log."""

    disposition: str | None = param(
        None,
        f"Call outcome: the label or the ID of one of the account's call outcomes, or {', '.join(DEFAULT_OUTCOMES)}. "
        "Default: `outcome` if the rule sets it and the account has this label, else derived from the status.",
        example="Appointment set",
    )
    on_missing: Literal["create", "skip"] = _ON_MISSING
    owner: str | None = OWNER
    deal: str | None = DEAL
    ticket: str | None = TICKET

    @property
    def playable_recording(self) -> str | None:
        """The URL of the recording if HubSpot can play it: it takes https only."""
        return self.recording_url if (self.recording_url or "").startswith("https://") else None

    def details(self, context: Context) -> Mapping[str, object]:
        """Return the details with a recording that HubSpot cannot play, so that its URL is not lost."""
        recording = None if self.playable_recording else self.recording_url
        return {"Recording": recording, **super().details(context)}


class LogChatParams(ChatParams):
    """A chat to log."""

    on_missing: Literal["create", "skip"] = _ON_MISSING
    owner: str | None = OWNER
    deal: str | None = DEAL
    ticket: str | None = TICKET


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE, needs=CONTACTS)
def log_call(account: Account, items: Sequence[BatchItem[LogCallParams]]) -> list[BatchResult]:
    """Log the call on the contact's timeline, once per conversation."""
    by_key = items_by_conversation(items)
    drafts = {key: _call_draft(account, item.params, item.context) for key, item in by_key.items()}
    return _log(account, "calls", by_key, drafts)


@connector.action(idempotency=per_conversation, idempotent=True, batch=BATCH_SIZE, needs=CONTACTS)
def log_chat(account: Account, items: Sequence[BatchItem[LogChatParams]]) -> list[BatchResult]:
    """Log the chat as a note on the contact's timeline, once per conversation."""
    by_key = items_by_conversation(items)
    drafts = {key: _chat_draft(item.params, item.context) for key, item in by_key.items()}
    return _log(account, "notes", by_key, drafts)


log_call.check_params(check_ids)
log_chat.check_params(check_ids)


def _call_draft(account: Account, call: LogCallParams, context: Context) -> Draft:
    disposition, notes = _disposition(account, call, context)
    transcript = _Transcript(call, context)

    def build(contact: ContactRef | None) -> dict[str, str]:
        seconds = call.duration_seconds()
        caller, callee = call.caller_and_callee(context)
        standard: dict[str, Any] = {
            "hs_timestamp": to_milliseconds(call.start(context)),
            "hs_call_title": call.display_title(context),
            "hs_call_body": transcript.body("", contact),
            "hs_call_duration": None if seconds is None else round(seconds * 1000),
            "hs_call_direction": {True: "OUTBOUND", False: "INBOUND", None: None}[call.is_outbound],
            "hs_call_status": CALL_STATUSES.get(call.normalized_status),
            "hs_call_disposition": disposition,
            "hs_call_from_number": caller,
            "hs_call_to_number": callee,
            "hs_call_recording_url": call.playable_recording,
            # HubSpot knows no other source, and needs it only for recordings.
            "hs_call_source": "INTEGRATIONS_PLATFORM" if call.playable_recording else None,
            "hs_activity_type": call.call_type,
        }
        return to_strings(standard)

    return Draft(
        context,
        build,
        call.owner,
        {"deals": call.deal, "tickets": call.ticket},
        call.additional_fields(context),
        transcript.parts,
        notes,
        _skip(call, context),
    )


def _chat_draft(chat: LogChatParams, context: Context) -> Draft:
    transcript = _Transcript(chat, context)

    def build(contact: ContactRef | None) -> dict[str, str]:
        standard = {
            "hs_timestamp": to_milliseconds(context.event.occurred_at),
            "hs_note_body": transcript.body(f"{chat.display_title(context)}\n", contact),
        }
        return to_strings(standard)

    return Draft(
        context,
        build,
        chat.owner,
        {"deals": chat.deal, "tickets": chat.ticket},
        chat.additional_fields(context),
        transcript.parts,
        (),
        _skip(chat, context),
    )


def _disposition(account: Account, call: LogCallParams, context: Context) -> tuple[str | None, list[str]]:
    """Return the ID of the call's outcome, and a note if HubSpot has no such outcome."""
    if call.disposition:
        lookup = account.call_outcomes.resolve(call.disposition)
        return lookup.id, [f"without the call outcome: {lookup.problem}"] if lookup.problem else []
    if call.outcome and call.outcome != context.event.fields.get("outcome"):
        lookup = account.call_outcomes.resolve(call.outcome)
        if lookup.id:
            return lookup.id, []
    outcome = _OUTCOME_OF_STATUS.get(call.normalized_status)
    return DEFAULT_OUTCOMES[outcome] if outcome else None, []


class _Transcript:
    """The transcript of a conversation: at the end of the record's body, or in notes of its own if it is too long."""

    def __init__(self, params: LogCallParams | LogChatParams, context: Context) -> None:
        self._params, self._context = params, context
        self._text = (params.transcript or "").strip()
        self._is_short = False
        self.parts: list[str] = []
        if not self._text:
            return
        title = params.display_title(context)
        longest = params.body_text(context, ContactRef("", given_name="x" * 200), MAX_BODY_LENGTH)
        self._is_short = fits(f"{title}\n{longest}\n\nTranscript:\n{self._text}")
        texts = [] if self._is_short else split_to_fit(self._text, _HEADING_ROOM)
        for number, text in enumerate(texts, 1):
            part = f", part {number} of {len(texts)}" if len(texts) > 1 else ""
            heading = f"Transcript{part}: {title[:100]}\nConversation: {context.event.conversation.id[:100]}"
            self.parts.append(to_html(f"{heading}\n\n{text}"))

    def body(self, heading: str, contact: ContactRef | None) -> str:
        """Return the body of the record. A summary that is too long is shortened; what follows it is not."""
        ending = ""
        if self._text:
            ending = (
                f"\n\nTranscript:\n{self._text}" if self._is_short else "\nTranscript: in a note of its own"
            )
        return to_fitting_html(
            lambda size: f"{heading}{self._params.body_text(self._context, contact, size)}{ending}"
        )


def _skip(params: LogCallParams | LogChatParams, context: Context) -> str:
    if params.on_missing == "create":
        return ""
    has_address = params.contact_query(context, create=False).keys
    return "not logged: HubSpot has no such contact" if has_address else "not logged"


P = TypeVar("P", LogCallParams, LogChatParams)


def _log(
    account: Account, kind: str, by_key: dict[str, BatchItem[P]], drafts: dict[str, Draft]
) -> list[BatchResult]:
    queries = {
        key: item.params.contact_query(item.context, create=item.params.on_missing == "create")
        for key, item in by_key.items()
    }
    results = write_batch(account, kind, queries, drafts)
    return [results[key] for key in by_key]

"""The check of a Twilio account: its credentials and its senders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from twilio.base.exceptions import TwilioException, TwilioRestException

from bridge.connector import ActionUse, RuleProblem
from bridge.errors import AccountError, AuthenticationError, ConfigError

from .account import Account, classify_error
from .senders import Sender, replies_note
from .settings import connector
from .whatsapp_check import find_whatsapp_sender, template_problems

if TYPE_CHECKING:
    from twilio.rest import Client


@connector.check
def check(account: Account) -> str:
    """Read the account and its senders. Sends nothing."""
    settings = account.settings
    notes = [*_check_credentials(account)]
    service, sender = settings.messaging_service_sid, settings.sender
    pool = None
    if service:
        pool, service_notes = _check_service(account.api, service)
        notes += service_notes
    if sender:
        notes += _check_sender(account.api, sender, pool)
    if settings.whatsapp_sender:
        notes += _check_whatsapp_sender(account.api, settings.whatsapp_sender)
    return ", ".join(notes)


def _check_credentials(account: Account) -> list[str]:
    """Check the auth token by reading the account, and the API key by listing messages, which lookups need as well."""
    with _advice("check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN, and TWILIO_REGION if it is set"):
        details = account.details()
    if details.status != "active":
        raise AccountError(f"the Twilio account is {details.status}", fix="reactivate it in Twilio's console")
    notes = ["account active"]
    if details.type == "Trial":
        notes.append("trial: only verified numbers can be texted")
    if account.settings.api_key_sid is None:
        return [*notes, "requests log in with the auth token: better create a Standard API key"]
    with _advice(
        "check TWILIO_API_KEY_SID and TWILIO_API_KEY_SECRET: the key must belong to this account and region, and a "
        "restricted key must be allowed to create and read messages"
    ):
        account.api.messages.list(limit=1, page_size=1)
    return [*notes, "API key accepted"]


@contextmanager
def _advice(fix: str) -> Iterator[None]:
    """Name the settings that a rejected login belongs to."""
    try:
        yield
    except TwilioException as error:
        failure = classify_error(error)
        if isinstance(failure, AccountError):
            raise AuthenticationError(failure.detail, fix=fix) from error
        raise


def _check_service(api: Client, sid: str) -> tuple[set[str], list[str]]:
    """Return the senders in the pool of the messaging service, and notes."""
    service = api.messaging.v1.services(sid)
    try:
        details = service.fetch()
    except TwilioRestException as error:
        if error.status != 404:
            raise
        raise ConfigError(
            "TWILIO_MESSAGING_SERVICE_SID is not a messaging service of this account: set another one"
        ) from error
    numbers = {item.phone_number for item in service.phone_numbers.list(limit=400)}
    pool = {
        *numbers,
        *(item.short_code for item in service.short_codes.list(limit=20)),
        *(item.alpha_sender for item in service.alpha_senders.list(limit=20)),
    }
    if not pool:
        raise ConfigError("the messaging service has no sender: add one to its sender pool in Twilio")
    notes = ["messaging service with a sender found"]
    if any(number.startswith("+1") for number in numbers) and details.us_app_to_person_registered is False:
        notes.append("but it has no A2P 10DLC campaign: US carriers block its texts until one is registered")
    if not details.use_inbound_webhook_on_number:
        notes += replies_note(details.inbound_request_url)
    return pool, notes


def _check_sender(api: Client, sender: str, pool: set[str] | None) -> list[str]:
    """Check TWILIO_FROM: that the account has it, that it can send texts, and that the messaging service has it too."""
    if pool is not None:
        if sender not in pool:
            raise ConfigError(
                "TWILIO_FROM is not in the sender pool of TWILIO_MESSAGING_SERVICE_SID: add it there, or remove "
                "TWILIO_FROM"
            )
        return []
    found = _find_sender(api, sender)
    if found.problem:
        raise ConfigError(f"TWILIO_FROM {found.problem}: {found.hint}")
    return found.notes


def _find_sender(api: Client, sender: str) -> Sender:
    if sender.isdigit():
        if api.short_codes.list(short_code=sender, limit=1):
            return Sender(notes=["short code found"])
        return Sender("is not a short code of this account", "set another sender")
    if not sender.startswith("+"):
        note = "the sender ID cannot be checked: not every country accepts one, and nobody can reply to it"
        return Sender(notes=[note])
    owned = api.incoming_phone_numbers.list(phone_number=sender, limit=1)
    if not owned:
        return Sender("is not a number of this account", "buy it or set another one")
    if not (owned[0].capabilities or {}).get("sms", True):
        return Sender("is a number that cannot send text messages", "set one that can")
    return Sender(notes=["sender found", *replies_note(owned[0].sms_url)])


def _check_whatsapp_sender(api: Client, number: str) -> list[str]:
    """Check TWILIO_WHATSAPP_FROM: that it is a WhatsApp sender of the account, and online."""
    found = find_whatsapp_sender(api, number)
    if found.problem:
        raise ConfigError(f"TWILIO_WHATSAPP_FROM {found.problem}: {found.hint}")
    return found.notes


@connector.check_rules
def check_rules(account: Account, uses: Sequence[ActionUse]) -> list[RuleProblem]:
    """Find senders and templates in the rules that the account does not have, or that WhatsApp has not approved."""
    senders: dict[tuple[str, str], Sender] = {}
    problems = []
    for use in uses:
        find = find_whatsapp_sender if use.action.channel == "whatsapp" else _find_sender
        sender = use.params.get("sender")
        if isinstance(sender, str):
            key = (find.__name__, sender)
            if key not in senders:
                senders[key] = find(account.api, sender)
            if found := senders[key].problem:
                problems.append(RuleProblem(f"`sender` {found}", senders[key].hint, use, ("sender",)))
        problems += template_problems(account, use)
    return problems

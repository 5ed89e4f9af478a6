"""State of a mock Twilio account: its messages, senders, keys and restrictions."""

from __future__ import annotations

from bridge.sandbox.provider import MAX_RECORDS, MockProvider, ProviderError, ProviderRequest
from bridge.sandbox.twilio.errors import error_response
from bridge.sandbox.twilio.messages import Message
from bridge.sandbox.twilio.templates import MISSED_CALL, ContentTemplate

AUTH_TOKEN = "3f2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d"  # noqa: S105 - valid only in this sandbox
API_KEY_SID = "SK1f2e3d4c5b6a79880716253443526170"
API_KEY_SECRET = "sandboxApiKeySecret0123456789abc"  # noqa: S105
NUMBER = "+12125550100"
WHATSAPP_NUMBER = "+12125550109"
SERVICE_SID = "MG0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e"


class AccountState(MockProvider):
    """An account with one phone number and one messaging service that sends from it.

    `numbers` are the account's phone numbers, `pool` is the sender pool of the messaging service, and `inbound_url` is
    the webhook for inbound messages, configured for all of them. With `advanced_opt_out`, it gets the kind of each
    keyword as `OptOutType`, and `more_stop_words` count as well, such as `ARRET`.

    What a real account may be like: `standard_keys` are API keys (SID -> secret) that may use everything but the
    account itself; `voice_only` are numbers that cannot send texts; a `Trial` account (`type`) texts only `verified`
    numbers; a `suspended` one (`status`) texts nobody; without `a2p_registered`, US carriers block the service's texts.

    `whatsapp_senders` are the numbers registered for WhatsApp with their status (`ONLINE`), which the service has as
    well, and `templates` the content templates by SID. `no_whatsapp` are people's numbers without WhatsApp.
    """

    name = "twilio"

    def reset(self) -> None:
        """Remove all messages and opt-outs, and restore the sender pool, the keys and the account."""
        with self.lock:
            self._messages: dict[str, Message] = {}
            self._opted_out: set[str] = set()
            self._landlines: set[str] = set()
            self.numbers = [NUMBER]
            self.short_codes: list[str] = []
            self.voice_only: set[str] = set()
            self.pool = [NUMBER]
            self.a2p_registered = True
            self.inbound_url = ""
            self.advanced_opt_out = False
            self.more_stop_words: set[str] = set()
            self.whatsapp_senders = {WHATSAPP_NUMBER: "ONLINE"}
            self.no_whatsapp: set[str] = set()
            self.templates: dict[str, ContentTemplate] = {MISSED_CALL.sid: MISSED_CALL}
            self.standard_keys = {API_KEY_SID: API_KEY_SECRET}
            self.type = "Full"
            self.verified: set[str] = set()
            self.status = "active"

    @property
    def messages(self) -> list[Message]:
        """The outbound messages, oldest first."""
        with self.lock:
            return [message for message in self._messages.values() if message.direction != "inbound"]

    @property
    def inbound(self) -> list[Message]:
        """The inbound messages, oldest first."""
        with self.lock:
            return [message for message in self._messages.values() if message.direction == "inbound"]

    @property
    def opted_out(self) -> set[str]:
        """The numbers that Twilio rejects messages to."""
        with self.lock:
            return set(self._opted_out)

    def opt_out(self, number: str) -> None:
        """Reject further messages to `number` with error 21610, as after a STOP reply."""
        with self.lock:
            self._opted_out.add(number)

    def opt_in(self, number: str) -> None:
        """Undo `opt_out`, as after a START reply."""
        with self.lock:
            self._opted_out.discard(number)

    def add_landline(self, number: str) -> None:
        """Reject messages to `number` with error 21614, as for a landline."""
        with self.lock:
            self._landlines.add(number)

    def store(self, message: Message) -> None:
        """Store a message. Raise ProviderError if the sandbox is full."""
        if len(self._messages) >= MAX_RECORDS:
            raise self.storage_full_error()
        self._messages[message.sid] = message


def not_found(request: ProviderRequest) -> ProviderError:
    """Return the error for a resource that this account does not have."""
    return ProviderError(error_response(404, f"The requested resource {request.path} was not found"))

"""The conformance suite finds every error that connector authors have made, and says what is wrong."""

from __future__ import annotations

import gc
import inspect
import itertools
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import requests
from pydantic import SecretStr

from bridge.connector import (
    ConnectorSettings,
    Context,
    DeadlineAdapter,
    ProviderUrl,
    SecretUrl,
    Success,
    failure_from_status,
)
from bridge.errors import DeliveryError, OutcomeUnknown, PermanentError, RateLimited, TransientError
from tests.integration.desk_connector import (
    Client,
    FakeDesk,
    Settings,
    Ticket,
    TicketConformance,
    build_connector,
)


class NewReferences(Client):
    def reference(self, context: Context) -> str:
        return uuid4().hex


class ForeignRecords(Client):
    def matches(self, entry: Mapping[str, Any], context: Context) -> bool:
        return True


class ServerErrorsAreTransient(Client):
    def error(self, response: Any) -> DeliveryError:
        return TransientError("the desk is down") if response.status_code >= 500 else super().error(response)


class RejectedIsTransient(Client):
    def error(self, response: Any) -> DeliveryError:
        rejected = response.status_code in (404, 422)
        return TransientError("not now") if rejected else super().error(response)


LIFE = timedelta(hours=2)


class ProvidersWords(Client):
    def error(self, response: Any) -> DeliveryError:
        return PermanentError(response.text) if response.status_code == 422 else super().error(response)


class LogsHeaders(Client):
    def send(self, method: str, path: str, **content: Any) -> Any:
        response = super().send(method, path, **content)
        logging.getLogger("desk").info("sent %s", response.request.headers["Authorization"])
        return response


class LogsBodies(Client):
    def send(self, method: str, path: str, **content: Any) -> Any:
        logging.getLogger("desk").debug("sending %s", content)
        return super().send(method, path, **content)


class IgnoresRetryAfter(Client):
    def error(self, response: Any) -> DeliveryError:
        return RateLimited("too fast") if response.status_code == 429 else super().error(response)


class OwnClient(Client):
    options: Mapping[str, Any] = {"timeout": 30.0}

    def build(self, settings: Settings) -> Any:
        auth = (settings.user, settings.token.get_secret_value())
        return httpx.Client(base_url=settings.url, auth=auth, trust_env=False, **self.options)


class OwnClientOfFiveSeconds(OwnClient):
    options = {"timeout": 5.0}


class SendsToken(Client):
    """Right for a provider that remembers tokens for a time."""

    def send(self, method: str, path: str, **content: Any) -> Any:
        if method == "POST":
            content["headers"] = {"Idempotency-Key": content["json"].get("reference", "")}
        return super().send(method, path, **content)


class TakesSteps(Client):
    """Right: each of its writes is a step."""

    def save(self, ticket: Ticket, context: Context) -> Success:
        if context.existing_id:
            return super().save(ticket, context)
        contact = context.step(
            "contact", lambda: self.contact(ticket, context), lambda: self.find_contact(ticket)
        )
        body = self.body(ticket, context) | {"contact": contact}
        return self.result(str(self.open(body, ticket, context)), ticket)

    def open(self, body: Mapping[str, Any], ticket: Ticket, context: Context) -> str | None:
        return context.step(
            "ticket",
            lambda: self.ask("POST", "/tickets", "id", json=body),
            lambda: (found := self.find(ticket, context)) and found.id,
        )

    def find_contact(self, ticket: Ticket) -> str | None:
        found = self.ask("GET", "/contacts", "contacts", params={"email": ticket.email})
        return found[0] if found else None


class WritesOutsideSteps(TakesSteps):
    def open(self, body: Mapping[str, Any], ticket: Ticket, context: Context) -> str | None:
        ticket_id: str = self.ask("POST", "/tickets", "id", json=body)
        return ticket_id


class StepIsNotFound(TakesSteps):
    def find(self, ticket: Ticket, context: Context) -> Success | None:
        return None


class FindsNothing(SendsToken):
    def matches(self, entry: Mapping[str, Any], context: Context) -> bool:
        return False


class FollowsRedirects(OwnClient):
    options = {"follow_redirects": True}


class AnySuccess(Client):
    def read(self, response: Any, holds: str) -> Any:
        try:
            return super().read(response, holds)
        except OutcomeUnknown:
            return "unknown"


class SwallowsErrors(Client):
    def find(self, ticket: Ticket, context: Context) -> Success | None:
        try:
            return super().find(ticket, context)
        except DeliveryError:
            return None


class ForeignPages(Client):
    def find(self, ticket: Ticket, context: Context) -> Success | None:
        response = self.send("GET", "/tickets")
        if not response.is_success:
            raise self.error(response)
        try:
            response.json()["list"]["tickets"]
        except (ValueError, KeyError, TypeError):
            return None
        return super().find(ticket, context)


class FirstPage(Client):
    def pages(self) -> Iterator[list[dict[str, Any]]]:
        return itertools.islice(super().pages(), 1)


class OwnRetries(Client):
    def send(self, method: str, path: str, **content: Any) -> Any:
        response = super().send(method, path, **content)
        return super().send(method, path, **content) if response.status_code >= 500 else response


class TextNotSent(Client):
    def body(self, ticket: Ticket, context: Context) -> dict[str, Any]:
        return super().body(ticket.model_copy(update={"text": None}), context)


class PropertiesNotSent(Client):
    def body(self, ticket: Ticket, context: Context) -> dict[str, Any]:
        return super().body(ticket.model_copy(update={"properties": {}}), context)


class NoClose(Client):
    close = None  # type: ignore[assignment]


class PlainToken(ConnectorSettings):
    """Settings with a secret in a plain text."""

    url: ProviderUrl
    user: str
    token: str


class PlainTokenDesk(Client):
    def build(self, settings: Any) -> Any:
        return super().build(settings.model_copy(update={"token": SecretStr(settings.token)}))


class NoDetail(Client):
    def result(self, ticket_id: str, ticket: Ticket) -> Success:
        return Success(ticket_id, None)  # type: ignore[arg-type]


class CheckWrites(Client):
    def check(self) -> str:
        self.ask("POST", "/tickets", "id", json={"subject": "Test", "reference": ""})
        return "authenticated"


class IgnoresExistingId(Client):
    def save(self, ticket: Ticket, context: Context) -> Success:
        body = self.body(ticket, context) | {"contact": self.contact(ticket, context)}
        return Success(self.ask("POST", "/tickets", "id", json=body))


class NewContacts(Client):
    def contact(self, ticket: Ticket, context: Context) -> str:
        return str(self.ask("POST", "/contacts", "id", json={"email": ticket.email}))


class UnauthorizedIsPermanent(Client):
    def error(self, response: Any) -> DeliveryError:
        return PermanentError("no access") if response.status_code == 401 else super().error(response)


class AddressInDetail(Client):
    def result(self, ticket_id: str, ticket: Ticket) -> Success:
        return Success(ticket_id, f"created for {ticket.email}")


class SharedState(Client):
    def save(self, ticket: Ticket, context: Context) -> Success:
        self.ticket = ticket
        return super().save(ticket, context)


class WebhookSettings(ConnectorSettings):
    """Settings of a webhook."""

    webhook_url: SecretUrl


class WebhookDesk(Client):
    """Posts to a secret URL and names it in its errors."""

    def __init__(self, settings: Any) -> None:
        self.secret = settings.webhook_url.get_secret_value()
        base, _, _ = self.secret.partition("/hooks/")
        super().__init__(Settings(url=base, user="u", token=SecretStr("unused-token")))

    def error(self, response: Any) -> DeliveryError:
        status = response.status_code
        return failure_from_status(status, f"{self.secret} returned {status}")


class PlainWebhookSettings(ConnectorSettings):
    """Settings of a webhook without a secret type."""

    webhook_url: ProviderUrl


class PlainWebhookDesk(Client):
    def __init__(self, settings: Any) -> None:
        base, _, _ = settings.webhook_url.partition("/hooks/")
        super().__init__(Settings(url=base, user="u", token=SecretStr("unused-token")))


class AcceptedOnly(Client):
    """Right for a provider that confirms with 202 and no body."""

    accepted = staticmethod(lambda status: status == 202)

    def contact(self, ticket: Ticket, context: Context) -> str:
        return ""

    def save(self, ticket: Ticket, context: Context) -> Success:
        response = self.send("POST", "/tickets", json=self.body(ticket, context) | {"email": ticket.email})
        if self.accepted(response.status_code):
            return Success(None, "accepted")
        raise self.error(response)


class AnyStatusIsAccepted(AcceptedOnly):
    accepted = staticmethod(lambda status: 200 <= status < 300)


class SessionDesk(Client):
    """Right, over an SDK on requests."""

    def build(self, settings: Settings) -> Any:
        session = requests.Session()
        session.mount("http://", DeadlineAdapter())
        session.auth = (settings.user, settings.token.get_secret_value())
        self.url = settings.url
        return session

    def send(self, method: str, path: str, **content: Any) -> Any:
        response = self.http.request(method, self.url + path, allow_redirects=False, **content)
        response.is_success = response.ok and response.status_code < 300
        return response


def all_transient(error: Exception) -> DeliveryError | None:
    """Call every error transient."""
    return TransientError("the desk failed", reason="network")


class WebhookConformance(TicketConformance):
    def environ(self, url: str) -> Mapping[str, str]:
        return {"DESK_WEBHOOK_URL": f"{url}/hooks/secret-of-the-webhook"}


class AcceptedConformance(TicketConformance):
    def confirming_statuses(self, action: Any) -> tuple[int, ...]:
        return (202,)

    @contextmanager
    def provider(self) -> Iterator[FakeDesk]:
        with super().provider() as fake:
            fake.status = 202
            yield fake


@dataclass(frozen=True)
class Break:
    """A broken connector, the test of the suite that names the cause, and words of its message."""

    desk: type[Any]
    test: str
    words: str
    options: Mapping[str, Any] = field(default_factory=dict)
    suite: type[TicketConformance] = TicketConformance


BREAKS = {
    "1 reference differs per attempt": Break(NewReferences, "lost_response", "not found by the lookup"),
    "3 5xx after a write is transient": Break(
        ServerErrorsAreTransient, "status_after_the_write", "OutcomeUnknown"
    ),
    "4 404 and 422 are transient": Break(RejectedIsTransient, "rejected", "404, 422: TransientError"),
    "5 provider's words": Break(ProvidersWords, "secrets", "the message after 422 contains"),
    "6 header in the log": Break(LogsHeaders, "secrets", "the log after"),
    "6b body in the debug log": Break(LogsBodies, "secrets", "the debug log"),
    "7 Retry-After ignored": Break(IgnoresRetryAfter, "retry_after", "parse_retry_after"),
    "8 own client, 30 s": Break(OwnClient, "deadline", "http_client"),
    "8b own client, 5 s": Break(OwnClientOfFiveSeconds, "deadline", "http_client"),
    "9 redirects followed": Break(FollowsRedirects, "redirect", "follow"),
    "10 any 2xx is a success": Break(AnySuccess, "foreign_response", "succeeded"),
    "11 lookup swallows errors": Break(SwallowsErrors, "lookup_fails", "500"),
    "12 lookup reads a foreign page": Break(ForeignPages, "lookup_of_a_foreign_page", "None"),
    "13 lookup reads the first page": Break(FirstPage, "among_others", "first page"),
    "14 own retries": Break(OwnRetries, "repeats_no_request", "sent twice"),
    "15 falsely idempotent": Break(Client, "lost_response", "idempotent=", {"idempotent": True}),
    "15b falsely idempotent for a time": Break(Client, "lost_response", "idempotent=", {"idempotent": LIFE}),
    "15c no lookup for a forgotten token": Break(
        FindsNothing, "lost_response", "once it has forgotten", {"idempotent": LIFE}
    ),
    "16 param not sent": Break(TextNotSent, "params_are_sent", "text"),
    "17 no close": Break(NoClose, "close", "close()"),
    "18 token is a plain text": Break(PlainTokenDesk, "described", "SecretStr", {"settings": PlainToken}),
    "19 all errors are transient": Break(
        Client, "lost_response", "OutcomeUnknown", {"classify": all_transient}
    ),
    "20 wrong type in Success": Break(NoDetail, "succeeds", "detail must be"),
    "21 check writes": Break(CheckWrites, "check_writes", "check"),
    "22 existing_id ignored": Break(IgnoresExistingId, "existing_id", "existing_id"),
    "23 lookup takes a foreign record": Break(ForeignRecords, "another_delivery", "another delivery"),
    "24 a new contact each time": Break(NewContacts, "lost_response", "instead of"),
    "26 properties not sent": Break(PropertiesNotSent, "params_are_sent", "properties"),
    "27 401 is permanent": Break(UnauthorizedIsPermanent, "credentials", "AuthenticationError"),
    "28 address in the detail": Break(AddressInDetail, "secrets_or_personal_data_in_a_success", "detail"),
    "29 state on the shared client": Break(SharedState, "client_keeps", "client.ticket"),
    "30 secret URL in errors": Break(
        WebhookDesk, "secrets", "secret", {"settings": WebhookSettings}, WebhookConformance
    ),
    "31 plain type for a webhook": Break(
        PlainWebhookDesk, "described", "SecretUrl", {"settings": PlainWebhookSettings}, WebhookConformance
    ),
    "33 write outside a step": Break(WritesOutsideSteps, "lost_response", "every write must be a step"),
    "34 step is not found": Break(StepIsNotFound, "lost_response", "every write must be a step"),
    "32 200 counts as 202": Break(
        AnyStatusIsAccepted, "foreign_response", "200, 201, 204", {}, AcceptedConformance
    ),
}
RIGHT = {
    "httpx": Break(Client, "", ""),
    "requests": Break(SessionDesk, "", ""),
    "several writes in steps": Break(TakesSteps, "", ""),
    "token with a lifetime": Break(SendsToken, "", "", {"idempotent": LIFE}),
    "202 without a body": Break(AcceptedOnly, "", "", {}, AcceptedConformance),
}
pytestmark = [  # broken connectors leave connections open
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
_SLOW = re.compile("hanging|dripping|hostile")


def run_suite(broken: Break, request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the failures of the tests that the break names (all, if it names none): test -> message."""
    connector = build_connector(broken.desk, **broken.options)
    suite = type("Suite", (broken.suite,), {"connector": connector})
    failures = {}
    for name, function in inspect.getmembers(suite, inspect.isfunction):
        if not name.startswith("test_") or broken.test not in name or _SLOW.search(name):
            continue
        for values in _values(function, connector, request):
            try:
                function(suite(), **values)
            except pytest.skip.Exception:
                pass
            except (AssertionError, Exception, pytest.fail.Exception) as error:
                failures.setdefault(name, f"{type(error).__name__}: {error}")
    gc.collect()
    return failures


def _values(
    function: Callable[..., Any], connector: Any, request: pytest.FixtureRequest
) -> Iterator[dict[str, Any]]:
    """Yield the arguments of a test: its action, its parameters, its fixtures."""
    [action] = connector.actions.values()
    marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    fixed = {
        name: action if name == "action" else request.getfixturevalue(name)
        for name in inspect.signature(function).parameters
        if name in ("action", "caplog")
    }
    for combination in itertools.product(*(mark.args[1] for mark in marks)):
        yield fixed | {mark.args[0]: value for mark, value in zip(marks, combination, strict=True)}


@pytest.mark.parametrize("name", BREAKS)
def test_suite_names_the_cause(name: str, request: pytest.FixtureRequest) -> None:
    broken = BREAKS[name]
    failures = run_suite(broken, request)
    assert any(broken.words in message for message in failures.values()), failures


@pytest.mark.parametrize("name", RIGHT)
def test_right_connector_passes(name: str, request: pytest.FixtureRequest) -> None:
    assert run_suite(RIGHT[name], request) == {}

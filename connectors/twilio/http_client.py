"""The SDK's HTTP client for one account. Imported with the first client, because of requests."""

from __future__ import annotations

from typing import Any

from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response

from bridge.connector import DeadlineAdapter, parse_retry_after
from bridge.errors import OutcomeUnknown, QuotaExhausted, RateLimited

from .errors import DAILY_LIMIT_CODE, ERRORS, RATE_LIMIT_CODE, error_code, json_object


class DeadlineHttpClient(TwilioHttpClient):  # type: ignore[misc]  # the SDK has no types
    """The SDK's HTTP client with the attempt's deadline and with error details that the SDK's exceptions omit."""

    def __init__(self, url: str | None) -> None:
        super().__init__()
        self.session.trust_env = False
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, DeadlineAdapter(redirect_to=url))

    def request(self, *args: Any, **kwargs: Any) -> Response:
        """Send one request. Raises RateLimited with Twilio's Retry-After, and OutcomeUnknown for a proxy's response."""
        response = super().request(*args, **kwargs)
        if response.status_code == 429:
            if error_code(response.text) == DAILY_LIMIT_CODE:
                raise QuotaExhausted(ERRORS[DAILY_LIMIT_CODE].text)
            raise RateLimited(
                ERRORS[RATE_LIMIT_CODE].text, retry_after=parse_retry_after(_header(response, "Retry-After"))
            )
        if response.status_code < 400 and json_object(response.text) is None:
            raise OutcomeUnknown(
                f"the response ({response.status_code}) is not Twilio's: check for a proxy in between",
                reason="server_error",
            )
        return response


def _header(response: Response, name: str) -> str | None:
    value = (response.headers or {}).get(name)
    return str(value) if value is not None else None

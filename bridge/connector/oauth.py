"""OAuth 2.0: one request to a token endpoint (RFC 6749, sections 4 to 6), for the function under `@connector.token`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from bridge.connector.json_response import json_object
from bridge.connector.tokens import Token
from bridge.connector.transport import failure_from_exception, http_client, parse_retry_after
from bridge.errors import AuthenticationError, DeliveryError, RateLimited, TransientError
from bridge.lazy import LazyModule

if TYPE_CHECKING:
    import httpx
else:
    httpx = LazyModule("httpx")

_FIXES: Mapping[str, str] = {
    "invalid_client": "check the client ID and the client secret",
    "invalid_grant": "access was revoked or has expired: grant it again, and set the new refresh token",
    "unauthorized_client": "allow the app this kind of login",
    "unsupported_grant_type": "check the URL of the token endpoint",
    "invalid_scope": "allow the app the permissions that it asks for",
    "invalid_request": "check the settings of the login",
}
"""Error codes of the standard -> what to do."""
_MAX_LIFETIME = 10 * 365 * 86400.0
"""Seconds."""


def request_token(
    url: str,
    form: Mapping[str, str | SecretStr],
    *,
    basic: tuple[str, SecretStr] | None = None,
    as_json: bool = False,
    previous: Token | None = None,
    fixes: Mapping[str, str] | None = None,
    fix: str = "check the credentials of the connection",
) -> Token:
    """Post a form to a token endpoint and return its token. `basic` is the client's ID and secret, if not in the form.

    With `as_json`, the form is sent as a JSON object, which some providers require instead of what the standard says.
    The refresh token is the new one, or that of `previous` if the provider has issued none. `fixes` says what to do by
    error code, in the answer's `error` or as a word of its `error_description`; the first one counts. Raise
    AuthenticationError for a refusal, RateLimited for 429, TransientError if there is no answer or one without a token.
    """
    data = {name: _plain(value) for name, value in form.items()}
    auth = httpx.BasicAuth(basic[0], basic[1].get_secret_value()) if basic is not None else None
    try:
        with http_client() as client:
            response = client.post(
                url,
                data=None if as_json else data,
                json=data if as_json else None,
                auth=auth or httpx.USE_CLIENT_DEFAULT,
            )
    except DeliveryError:
        raise
    except Exception as error:
        failure = failure_from_exception(error)
        if failure is None:
            raise
        raise TransientError(f"the token endpoint: {failure.detail}", reason=failure.reason) from error
    answer = json_object(response)
    access = answer.get("access_token")
    if not response.is_success or not isinstance(access, str) or not _is_header_value(access):
        own = dict(fixes or {})
        raise _token_error(
            response, answer, own | {c: text for c, text in _FIXES.items() if c not in own}, fix
        )
    refresh = answer.get("refresh_token")
    url_of_api = answer.get("instance_url")
    return Token(
        SecretStr(access),
        _expiry(answer.get("expires_in")),
        SecretStr(refresh)
        if isinstance(refresh, str) and refresh
        else previous.refresh
        if previous
        else None,
        url_of_api if isinstance(url_of_api, str) else None,
    )


def _is_header_value(text: str) -> bool:
    return text != "" and text.isascii() and text.isprintable()


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _expiry(seconds: Any) -> datetime | None:
    """Return when a token with this lifetime expires; None if the lifetime is not known, or not plausible."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | str):
        return None
    try:
        lifetime = float(seconds)
    except ValueError:
        return None
    return datetime.now(UTC) + timedelta(seconds=lifetime) if 0 <= lifetime < _MAX_LIFETIME else None


def _token_error(
    response: httpx.Response, answer: Mapping[str, Any], fixes: Mapping[str, str], fix: str
) -> DeliveryError:
    """Map the answer of the token endpoint. Only known codes are kept: its descriptions name users and apps."""
    status = response.status_code
    wait = parse_retry_after(response.headers.get("Retry-After"))
    if status == 429:
        return RateLimited("the token endpoint answered 429", retry_after=wait)
    if status >= 500 or status < 400 or status in (408, 425):
        return TransientError(f"the token endpoint answered {status} without a token", retry_after=wait)
    words = f"{answer.get('error_description', '')} {answer.get('error', '')}"
    code = next((code for code in fixes if _contains(words, code)), "")
    detail = f"the token endpoint answered {' '.join(filter(None, (str(status), code)))}"
    return AuthenticationError(detail, fix=fixes.get(code, fix))


def _contains(words: str, code: str) -> bool:
    """Return whether a code is one of the words: AADSTS700016 begins like AADSTS7000215."""
    return any(word.strip(":.,") == code for word in words.split())

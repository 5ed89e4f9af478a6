"""HTTP connector: posts events to your own services, signed according to Standard Webhooks."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Self

import httpx
from pydantic import AfterValidator, BeforeValidator, SecretStr, model_validator
from standardwebhooks import Webhook

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Limits,
    Params,
    SerializeBy,
    Success,
    http_client,
    is_loopback,
    param,
    parse_retry_after,
    per_event,
    resolve_host,
    send_to_verified,
)
from bridge.errors import OutcomeUnknown, PermanentError, TransientError

MAX_BODY_BYTES = 256 * 1024
"""Largest JSON body. A larger one is rejected before anything is sent."""


def _split_secrets(value: object) -> object:
    if not isinstance(value, str):
        return value
    secrets = [part.strip() for part in value.split(",")]
    if not all(_is_signing_secret(secret) for secret in secrets):
        raise ValueError("must be whsec_ followed by 24 to 64 bytes in base64; two are separated by a comma")
    return tuple(SecretStr(secret) for secret in secrets)


def _is_signing_secret(text: str) -> bool:
    try:
        return 24 <= len(base64.b64decode(text.removeprefix("whsec_"), validate=True)) <= 64
    except ValueError:
        return False


def _split_hosts(value: object) -> object:
    if not isinstance(value, str):
        return value
    hosts = tuple(filter(None, map(str.strip, value.lower().split(","))))
    if any("/" in host for host in hosts):
        raise ValueError(
            "write host names only, such as hooks.example.com, without https:// and without a path"
        )
    return hosts


def _validate_url(value: SecretStr) -> SecretStr:
    try:
        has_host = bool(httpx.URL(value.get_secret_value()).host)
    except httpx.InvalidURL:
        has_host = False
    if not has_host:
        raise ValueError("must be a whole URL, such as https://hooks.example.com/abc")
    return value


class Settings(ConnectorSettings):
    """Settings: `HTTP_ALLOWED_HOSTS` or `HTTP_URL`, and `HTTP_SECRET`."""

    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_split_hosts)] = ()
    """Comma-separated hosts, with the port unless it is the default: `erp.example.com,10.0.0.8:8443`."""
    secret: Annotated[tuple[SecretStr, ...], BeforeValidator(_split_secrets)]
    """Signing secret (`whsec_...`), with which your service verifies the signature. During a rotation: the new and the
    old one, separated by a comma; every request then has both signatures."""
    url: Annotated[SecretStr, AfterValidator(_validate_url)] | None = None
    """Target of steps without `url`, whose host is then allowed: for an address that is a password, as Zapier's are."""
    allow_private: bool = False
    """Allow host names that resolve to private addresses. An IP address in the list of hosts is always allowed."""

    @model_validator(mode="after")
    def _require_hosts(self) -> Self:
        if not self.allowed_hosts and self.url is None:
            raise ValueError("set HTTP_ALLOWED_HOSTS or HTTP_URL: no host is allowed otherwise")
        return self

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every allowed host, with the port unless it is the default."""
        own = [_host_of(httpx.URL(self.url.get_secret_value()))] if self.url is not None else []
        return (*self.allowed_hosts, *own)


connector = Connector(
    "http",
    settings=Settings,
    limits=Limits(concurrency=8),
    description="Posts events to your own services, signed according to Standard Webhooks.",
)


@connector.client
class Sender:
    """HTTP client that sends requests to the allowed hosts only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._webhooks = [Webhook(secret.get_secret_value()) for secret in settings.secret]
        # Each connection is opened to a verified address of one host. If kept alive, it could be reused for
        # another host at that address.
        self._http = http_client(limits=httpx.Limits(max_keepalive_connections=0))

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.close()

    def resolve_all(self) -> int:
        """Resolve every allowed host and return their number.

        Raises TransientError if a host does not resolve, PermanentError if it resolves to private addresses only.
        """
        for host in self._settings.hosts:
            target = httpx.URL(f"https://{host}")
            resolve_host(target.host, allow_private=self._settings.allow_private, advice=_ALLOW_PRIVATE)
        return len(self._settings.hosts)

    def target_of(self, url: str | None) -> str:
        """Return the URL of a step, or HTTP_URL if it has none."""
        if url is not None:
            return url
        if self._settings.url is None:
            raise PermanentError(_NO_URL)
        return self._settings.url.get_secret_value()

    @contextmanager
    def post(self, url: str, body: bytes, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """Post the body and yield the response: status and headers, with its body unread."""
        target = self._require_allowed(url)
        response = send_to_verified(
            self._http,
            "POST",
            target,
            headers=headers,
            content=body,
            allow_private=self._settings.allow_private,
            advice=_ALLOW_PRIVATE,
        )
        try:
            yield response
        finally:
            response.close()

    def _require_allowed(self, url: str) -> httpx.URL:
        try:
            target = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise PermanentError("invalid URL: check the param `url`") from error
        if target.userinfo:
            raise PermanentError(
                "the URL contains a user or password: remove them, the signature authenticates the request"
            )
        if target.scheme != "https" and not (target.scheme == "http" and is_loopback(target.host)):
            raise PermanentError("the URL must start with https://; http:// is allowed for loopback only")
        if not _is_allowed(target, self._settings):
            raise PermanentError(_NOT_ALLOWED, code="host")
        return target

    def signature_headers(self, message_id: str, sent_at: datetime, body: str) -> dict[str, str]:
        """Return the three headers of Standard Webhooks."""
        sent_at = sent_at.astimezone(UTC)  # the library ignores the offset
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": " ".join(item.sign(message_id, sent_at, body) for item in self._webhooks),
        }


_ALLOW_PRIVATE = "to allow it, set HTTP_ALLOW_PRIVATE=true"
_NOT_ALLOWED = "the URL's host is not in HTTP_ALLOWED_HOSTS: add it there or change `url`"
_NO_URL = "`http.post` needs `url`, or the setting HTTP_URL of its connection"


def _host_of(target: httpx.URL) -> str:
    return target.netloc.decode("ascii").lower()


def _is_allowed(target: httpx.URL, settings: Settings) -> bool:
    return _host_of(target) in settings.hosts


@connector.check
def check(sender: Sender) -> str:
    """Resolve every allowed host. Sends nothing."""
    return f"{sender.resolve_all()} allowed hosts resolved"


class PostParams(Params):
    """One request to your own service."""

    url: str | None = param(
        None,
        "Target URL: https, with a host listed in HTTP_ALLOWED_HOSTS. Default: HTTP_URL.",
        example="https://erp.example.com/heppu",
    )
    body: Any = param(
        "{{ event }}", "Body, sent as JSON. Default: the whole event.", example={"kind": "call"}
    )


@connector.action(idempotency=per_event, dedupe_by="url", serialize_by=SerializeBy.NONE, idempotent=True)
def post(sender: Sender, params: PostParams, context: Context) -> Success:
    """Post JSON to your own service. Retries have the same `webhook-id`, so that the service can ignore duplicates."""
    content = json.dumps(params.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    body = content.encode()
    if len(body) > MAX_BODY_BYTES:
        raise PermanentError(f"the body exceeds {MAX_BODY_BYTES} bytes: send fewer fields", code="size")
    message_id = "msg_" + context.idempotency_token
    headers = sender.signature_headers(message_id, context.now, content) | {
        "Content-Type": "application/json"
    }
    if context.traceparent:
        headers["traceparent"] = context.traceparent
    with sender.post(sender.target_of(params.url), body, headers) as response:
        status = response.status_code
        if response.is_success:
            return Success(id=message_id, detail=f"service answered {status}")
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
    # Never RateLimited or AuthenticationError: those pause the whole connection, and this is one of several hosts.
    if status == 429:
        raise TransientError(
            "the service asks for fewer requests (429)", reason="rate_limited", retry_after=retry_after
        )
    if status >= 500 or status in (408, 425):
        raise OutcomeUnknown(f"the service answered {status}", reason="server_error", retry_after=retry_after)
    if 300 <= status < 400:
        raise PermanentError(
            f"the service answered {status}; redirects are not followed: set `url` to the final address",
            code=str(status),
        )
    raise PermanentError(f"the service answered {status}", code=str(status))


@post.check_params
def check_post(settings: Settings, params: Mapping[str, Any]) -> str | None:
    """Find a URL that is missing, or whose host the settings do not allow, before the first event fails."""
    if "url" in params and params["url"] is None:
        return None if settings.url is not None else _NO_URL
    try:
        target = httpx.URL(str(params.get("url", "")))
    except httpx.InvalidURL:
        return "invalid URL: check the param `url`"
    return _NOT_ALLOWED if target.host and not _is_allowed(target, settings) else None

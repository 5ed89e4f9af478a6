"""HTTP: hand an event to a service of your own, signed as Standard Webhooks says."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BeforeValidator, SecretStr

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Limits,
    Params,
    SerializeBy,
    Success,
    failure_from_exception,
    http_client,
    is_loopback,
    param,
    parse_retry_after,
    per_event,
)
from bridge.errors import DeliveryError, OutcomeUnknown, PermanentError, TransientError

LARGEST_BODY = 256 * 1024
"""Bytes of JSON that are sent; more is refused before anything leaves."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _key(secret: SecretStr) -> bytes:
    return base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)


def _secret(value: SecretStr) -> SecretStr:
    try:
        length = len(_key(value))
    except (binascii.Error, ValueError):
        length = 0
    if not 24 <= length <= 64:
        raise ValueError("must be whsec_ and 24 to 64 bytes as base64")
    return value


def _hosts(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.lower().split(",")))) if isinstance(value, str) else value


class Settings(ConnectorSettings):
    """`HTTP_ALLOWED_HOSTS` and `HTTP_SECRET`."""

    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_hosts)]
    """Host names, separated by commas, with a port where it is not the usual one: `erp.example.com,10.0.0.8:8443`."""
    secret: Annotated[SecretStr, AfterValidator(_secret)]
    """`whsec_...`; the receiver checks the signature with it."""
    allow_private: bool = False
    """Whether an allowed name may lead to a private address; otherwise only an address that is listed itself."""


connector = Connector(
    "http",
    settings=Settings,
    limits=Limits(concurrency=8),
    description="Hands events to services of your own, signed as Standard Webhooks says.",
)


class Sender:
    """Requests to the allowed hosts and nowhere else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # A connection is made to one checked address for one host; kept, it could serve another host there.
        self._http = http_client(limits=httpx.Limits(max_keepalive_connections=0))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def resolve_all(self) -> int:
        """How many hosts are allowed; raises PermanentError when one of them leads nowhere or to a private network."""
        for host in self._settings.allowed_hosts:
            self._addresses(httpx.URL(f"https://{host}"))
        return len(self._settings.allowed_hosts)

    @contextmanager
    def post(self, url: str, body: bytes, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The answer's status and headers; its body stays unread."""
        target = self._allowed(url)
        # The name is looked up once and the request goes to what was checked: a second look-up could lead elsewhere.
        response = self._first_reached(
            self._http.build_request(
                "POST",
                target.copy_with(host=str(address)),
                content=body,
                headers=headers | {"Host": target.netloc.decode("ascii")},
                extensions={"sni_hostname": target.host},
            )
            for address in self._addresses(target)
        )
        try:
            yield response
        finally:
            response.close()

    def _first_reached(self, requests: Iterable[httpx.Request]) -> httpx.Response:
        """The answer of the first address that takes a connection."""
        unreached: httpx.TransportError = httpx.ConnectError("no address")
        for request in requests:
            try:
                return self._http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                unreached = error
        raise unreached

    def _allowed(self, url: str) -> httpx.URL:
        try:
            target = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise PermanentError("the URL cannot be read") from error
        if target.userinfo:
            raise PermanentError(
                "the URL holds a user or password; the signature tells the receiver who asks"
            )
        if target.scheme != "https" and not (target.scheme == "http" and is_loopback(target.host)):
            raise PermanentError("the URL must be https://; plain http:// is for loopback only")
        if target.netloc.decode("ascii").lower() not in self._settings.allowed_hosts:
            raise PermanentError("the URL's host is not in HTTP_ALLOWED_HOSTS", code="host")
        return target

    def _addresses(self, target: httpx.URL) -> list[Address]:
        """The addresses behind an allowed host, without those in a private network that a name leads to."""
        try:
            return [ipaddress.ip_address(target.host)]
        except ValueError:
            pass
        try:
            found = socket.getaddrinfo(target.host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise TransientError("the host's name leads nowhere now", reason="network") from error
        addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
        if not self._settings.allow_private and not is_loopback(target.host):
            addresses = [address for address in addresses if address.is_global]
        if not addresses:
            raise PermanentError(
                "the host's name leads to a private address; set HTTP_ALLOW_PRIVATE=true", code="host"
            )
        return addresses

    def signature(self, message: str, sent_at: datetime, body: bytes) -> dict[str, str]:
        """The three headers of Standard Webhooks."""
        stamp = str(int(sent_at.timestamp()))
        signed = b".".join((message.encode(), stamp.encode(), body))
        mac = hmac.new(_key(self._settings.secret), signed, hashlib.sha256).digest()
        return {
            "webhook-id": message,
            "webhook-timestamp": stamp,
            "webhook-signature": "v1," + base64.b64encode(mac).decode(),
        }


@connector.client
def client(settings: Settings) -> Sender:
    """Requests that end within the attempt's deadline, follow no redirect and read no body."""
    return Sender(settings)


@connector.check
def check(sender: Sender) -> str:
    """Look up every allowed host; sends nothing."""
    return f"{sender.resolve_all()} allowed hosts found"


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Answers are judged where they are read; what is left is the network."""
    return failure_from_exception(error)


class Post(Params):
    """One request to a service of your own."""

    url: str = param(
        ..., "Where to; https, and a host of HTTP_ALLOWED_HOSTS.", example="https://erp.example.com/heppu"
    )
    body: Any = param(
        "{{ event }}", "What to send as JSON; the whole event by default.", example={"kind": "call"}
    )


@connector.action(idempotency=per_event, dedupe_by="url", serialize_by=SerializeBy.NONE, idempotent=True)
def post(sender: Sender, request: Post, context: Context) -> Success:
    """Post JSON to a service of your own. The receiver knows a repeated request by its `webhook-id`."""
    body = json.dumps(request.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    if len(body) > LARGEST_BODY:
        raise PermanentError(f"the body has more than {LARGEST_BODY} bytes", code="size")
    message = "msg_" + context.idempotency_token
    headers = sender.signature(message, context.now, body) | {"Content-Type": "application/json"}
    with sender.post(request.url, body, headers) as response:
        status = response.status_code
        if response.is_success:
            return Success(id=message, detail=f"answered {status}")
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
    # Never RateLimited or AuthenticationError: those hold the whole connection, and this was one host of several.
    if status == 429:
        raise TransientError(
            "the receiver asks for fewer requests", reason="rate_limited", retry_after=retry_after
        )
    if status >= 500 or status in (408, 425):
        raise OutcomeUnknown(
            f"the receiver answered {status}", reason="server_error", retry_after=retry_after
        )
    if 300 <= status < 400:
        raise PermanentError(f"the receiver answered {status}; redirects are not followed", code=str(status))
    raise PermanentError(f"the receiver answered {status}", code=str(status))

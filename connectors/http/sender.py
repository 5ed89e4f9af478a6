"""Client of an HTTP connection: sends requests to allowed hosts, at verified addresses, and signs them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

from bridge.connector import did_you_mean, http_client, is_loopback, resolve_host, send_to_verified
from bridge.errors import PermanentError

from .settings import Settings, Target, connector, host_of

MAX_ANSWER_BYTES = 64 * 1024
"""Largest response that is read."""
ALLOW_PRIVATE = "to allow it, set HTTP_ALLOW_PRIVATE=true"
NOT_ALLOWED = "the URL's host is not in HTTP_ALLOWED_HOSTS: add it there or change `url`"
NO_RECEIVER = "the step needs `target` (a secret URL in HTTP_TARGETS_<NAME>), `url`, or the setting HTTP_URL"
_DOTS = re.compile(r"/(\.|%2e){1,2}(?=[/?#]|$)", re.IGNORECASE)
"""A step to a folder above, which a value of an event must not take."""
APPS_SCRIPT, APPS_SCRIPT_OUTPUT = "script.google.com", "script.googleusercontent.com"
"""Hosts of web apps in Google Apps Script, and of what they answer: each answer is a redirect to the second one."""


def receiver_of(settings: Settings, target: str | None, url: str | None) -> Target:
    """Return where a step sends its request. Raise PermanentError if it names no receiver, or an unknown one."""
    if target is not None and url is not None:
        raise PermanentError("write either `target` or `url`, not both")
    if target is not None:
        found = settings.target(target)
        if found is None:
            hint = did_you_mean(target, settings.target_names)
            raise PermanentError(
                f"there is no target `{target}`: set HTTP_TARGETS_{target.upper()} to its URL"
                + (f"; {hint}" if hint else ""),
                code="target",
            )
        return found
    if url is not None:
        return Target(url, {})
    if settings.url is None:
        raise PermanentError(NO_RECEIVER)
    return Target(settings.url.get_secret_value(), {})


@connector.client
class Sender:
    """HTTP client that sends requests to the allowed hosts only."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
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
        for host in self.settings.hosts:
            target = httpx.URL(f"https://{host}")
            resolve_host(target.host, allow_private=self.settings.allow_private, advice=ALLOW_PRIVATE)
        return len(self.settings.hosts)

    @contextmanager
    def send(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[httpx.Response]:
        """Send a request and yield the response: status and headers, with its body unread."""
        response = self._send(method, self._require_allowed(url), body, headers)
        try:
            yield response
        finally:
            response.close()

    @contextmanager
    def output_of_script(self, response: httpx.Response) -> Iterator[httpx.Response]:
        """Yield the output of a script of Google, which has run once it redirects to its output.

        Raise PermanentError for any other answer of Google's: a login page, or the page of an error.
        """
        location = _location(response)
        if location is None or host_of(location) != APPS_SCRIPT_OUTPUT:
            raise PermanentError(
                f"the script did not run to its end (it answered {response.status_code}): deploy it as a web app that "
                "anyone may use, let it answer with ContentService, and see its executions",
                code="script",
            )
        output = self._send("GET", location, None, {})
        try:
            yield output
        finally:
            output.close()

    def _send(
        self, method: str, url: httpx.URL, body: bytes | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        return send_to_verified(
            self._http,
            method,
            url,
            headers=headers,
            content=body,
            allow_private=self.settings.allow_private,
            advice=ALLOW_PRIVATE,
        )

    def _require_allowed(self, url: str) -> httpx.URL:
        try:
            target = httpx.URL(url)
            host = target.host
        except (httpx.InvalidURL, ValueError) as error:  # the second one for a wrong international name
            raise PermanentError("invalid URL: check the param `url`") from error
        if _DOTS.search(url):
            raise PermanentError(
                "the path of the URL contains `..`: write `| urlencode` after values of the event",
                code="path",
            )
        if target.userinfo:
            raise PermanentError(
                "the URL contains a user or password: remove them, and set HTTP_TARGETS_<NAME>_HEADER to the header "
                "that the receiver asks for"
            )
        if target.scheme != "https" and not (target.scheme == "http" and is_loopback(host)):
            raise PermanentError("the URL must start with https://; http:// is allowed for loopback only")
        if not is_allowed(target, self.settings):
            raise PermanentError(NOT_ALLOWED, code="host")
        return target

    def signature_headers(self, message_id: str, sent_at: datetime, body: str) -> dict[str, str]:
        """Return the three headers of Standard Webhooks; only the ID without a signing secret."""
        if not self._webhooks:
            return {"webhook-id": message_id}
        sent_at = sent_at.astimezone(UTC)  # the library ignores the offset
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": " ".join(item.sign(message_id, sent_at, body) for item in self._webhooks),
        }


def is_allowed(target: httpx.URL, settings: Settings) -> bool:
    """Return whether rules may send requests to this host."""
    return host_of(target) in settings.hosts


def is_script(url: str) -> bool:
    """Return whether a URL is that of a script of Google."""
    return host_of(httpx.URL(url)) == APPS_SCRIPT


def _location(response: httpx.Response) -> httpx.URL | None:
    """Return where a response redirects to; None if it does not, or not over https."""
    try:
        location = httpx.URL(response.headers.get("Location", ""))
    except httpx.InvalidURL:
        return None
    is_secure = location.scheme == "https" or is_loopback(location.host)
    return location if response.status_code == 302 and location.host and is_secure else None


@connector.check
def check(sender: Sender) -> str:
    """Resolve every allowed host. Sends nothing."""
    return f"{sender.resolve_all()} allowed hosts resolved"

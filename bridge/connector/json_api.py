"""JSON over HTTP: a client for providers without an SDK that says of every failure whether anything happened.

A failed read had no effect, so a later attempt is safe. After a write, only a response proves the outcome. Messages of
errors name the provider, the status and the path without its IDs. They never repeat a response, which may contain
personal data.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
from pydantic import SecretStr

from bridge.clock import uptime
from bridge.connector.deadline import attempt_deadline, has_written, note_write, remaining_seconds
from bridge.connector.json_response import checked_value, json_object, parse_json, value_at
from bridge.connector.request_path import fill_path
from bridge.connector.response_limits import MAX_RESPONSE_SECONDS
from bridge.connector.transport import (
    failure_from_exception,
    failure_from_status,
    http_client,
    parse_retry_after,
)
from bridge.errors import (
    ConfigError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    TransientError,
)

Refusal = Callable[[httpx.Response], DeliveryError | None]
"""Returns the error that a response reports in the provider's own words; None leaves it to the HTTP status."""

MAX_PAGES = 20
"""Pages that `JsonApi.pages` reads, unless its caller sets another limit."""


class JsonApi:
    """A thread-safe client of one provider's JSON API. It never repeats a request and never follows a redirect.

    `provider` is its name in messages, `url` the base of all paths. The credentials are `bearer` (a token), `basic`
    (user and password) or one of `headers`. `refusal` sees every response before its status is read, also those with
    2xx, because some providers report errors with status 200.
    """

    def __init__(
        self,
        provider: str,
        url: str | SecretStr,
        *,
        bearer: str | SecretStr | None = None,
        basic: tuple[str, str | SecretStr] | None = None,
        headers: Mapping[str, str | SecretStr] | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        if bearer is not None and basic is not None:
            raise TypeError("JsonApi: pass either bearer or basic")
        sent = {"Accept": "application/json"} | {
            name: _plain(value) for name, value in (headers or {}).items()
        }
        if bearer is not None:
            sent["Authorization"] = f"Bearer {_plain(bearer)}"
        if basic is not None:
            login = f"{basic[0]}:{_plain(basic[1])}".encode()
            sent["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        for name, value in sent.items():
            if not (value.isascii() and value.isprintable() and value == value.strip()):
                raise ConfigError(
                    f"the header {name} for {provider} cannot be sent: copy the credentials again, without "
                    "line breaks, spaces at the end or characters outside ASCII"
                )
        self._provider = provider
        self._base = httpx.URL(_plain(url))
        self._refusal = refusal
        self._http = http_client(headers=sent)

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.close()

    def read(
        self,
        path: str,
        *ids: str | int | None,
        kind: type[Any] | None = None,
        query: Mapping[str, Any] | None = None,
        json: Any = None,
        holds: str | None = None,
    ) -> Any:
        """Return the object of the response, or with `holds` the value at that key (`"user"`, `"data.user"`).

        Each `{}` of the path stands for one of `ids`. `kind` is the type of the result: `list`, `dict`, `str`. With
        `json`, the request is a POST that only searches. Raise TransientError if the outcome of the request is unknown,
        because a read has no effect; after a write in the same attempt, OutcomeUnknown.
        """
        method = "GET" if json is None else "POST"
        try:
            response, name = self._send(method, path, ids, query=query, json=json)
            return self._result(response, name, about_record=bool(ids), holds=holds, kind=kind)
        except OutcomeUnknown as error:
            raise _without_effect(error) from error

    def find(
        self,
        path: str,
        *ids: str | int | None,
        query: Mapping[str, Any] | None = None,
        holds: str | None = None,
    ) -> Any:
        """Return what `read` returns; None if the provider has no such record.

        Only a 404 or 410 with a JSON object that is not empty proves that: a proxy and a wrong URL answer 404 as well.
        """
        try:
            response, name = self._send("GET", path, ids, query=query)
            if response.status_code in (404, 410) and json_object(response):
                self._raise_refusal(response)
                return None
            return self._result(response, name, about_record=bool(ids), holds=holds)
        except OutcomeUnknown as error:
            raise _without_effect(error) from error

    def write(
        self,
        method: str,
        path: str,
        *ids: str | int | None,
        kind: type[Any] | None = None,
        json: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        holds: str | None = None,
        may_be_empty: bool = False,
    ) -> Any:
        """Send a request that changes something, and return its result as `read` does.

        With `may_be_empty`, a success without a body (204) is an empty object. Raise OutcomeUnknown unless a response,
        or a connection that was never opened, proves the outcome: for a 5xx, a lost response, and a success that is not
        the provider's.
        """
        response, name = self._send(method, path, ids, query=query, json=json, headers=headers, writes=True)
        return self._result(
            response, name, about_record=bool(ids), holds=holds, kind=kind, may_be_empty=may_be_empty
        )

    def pages(
        self,
        path: str,
        *ids: str | int | None,
        items: str | None,
        query: Mapping[str, Any] | None = None,
        cursor: tuple[str, str] | None = None,
        link: str | None = None,
        more: str | None = None,
        max_pages: int = MAX_PAGES,
        max_seconds: float = MAX_RESPONSE_SECONDS,
    ) -> Iterator[dict[str, Any]]:
        """Yield the objects of every page. `items` is the key of their list; None if the response is the list.

        `cursor=("meta.after", "page[after]")` takes the cursor of the next page from that key and sends it as that
        query parameter. `link="links.next"` takes the URL of the next page from that key, which must be on the same
        host. Without both, the URL is in the header `Link`. `more` is a key that is false on the last page.

        Raise LookupInconclusive if there are more pages than `max_pages`, or if a page repeats: what was looked for may
        be on a page that was not read. Raise TransientError after `max_seconds` in total, or at the attempt's deadline.
        """
        if cursor is not None and link is not None:
            raise TypeError("JsonApi.pages: pass either cursor or link")
        until = uptime() + remaining_seconds(max_seconds)
        url, name = self._url(path, ids, query), f"GET {path}"
        seen = {url}
        for _ in range(max_pages):
            page, response = self._page(url, name, until, about_record=bool(ids))
            yield from self._items(page, items, name)
            if more is not None and not value_at(page, more):
                return
            following = self._next_url(url, name, page, response, cursor, link)
            if following is None:
                return
            if following in seen:
                raise LookupInconclusive(
                    f"{self._provider} repeats a page of {name}; its list cannot be read"
                )
            seen.add(following)
            url = following
        raise LookupInconclusive(f"{self._provider} has more than {max_pages} pages for {name}")

    def _page(
        self, url: httpx.URL, name: str, until: float, *, about_record: bool
    ) -> tuple[Any, httpx.Response]:
        try:
            with attempt_deadline(until):
                response = self._exchange(self._http.build_request("GET", url))
            return self._result(response, name, about_record=about_record, kind=object), response
        except OutcomeUnknown as error:
            raise _without_effect(error) from error

    def _items(self, page: Any, key: str | None, name: str) -> list[dict[str, Any]]:
        try:
            found = checked_value(page, key, list, self._source(name))
        except OutcomeUnknown as error:
            raise _without_effect(error) from error
        if not all(isinstance(item, dict) for item in found):
            raise TransientError(
                f"{self._provider}'s response to {name} has a list of something else than objects"
            )
        return found  # type: ignore[no-any-return]

    def _next_url(
        self,
        url: httpx.URL,
        name: str,
        page: Any,
        response: httpx.Response,
        cursor: tuple[str, str] | None,
        link: str | None,
    ) -> httpx.URL | None:
        if cursor is not None:
            key, parameter = cursor
            value = value_at(page, key)
            if value is None or value is False or value == "":
                return None
            if isinstance(value, str | int):
                return url.copy_set_param(parameter, value)
            raise TransientError(f"{self._source(name)} has an invalid cursor in `{key}`")
        target = response.links.get("next", {}).get("url") if link is None else value_at(page, link)
        if not target:
            return None
        try:
            following = url.join(target)
        except (httpx.InvalidURL, TypeError, ValueError):
            raise TransientError(f"{self._source(name)} has an invalid link") from None
        if _origin(following) != _origin(self._base) or following.userinfo:
            raise PermanentError(
                f"{self._provider}'s next page for {name} is on another host, which does not get the "
                "credentials; check the URL of the connection",
                code="host",
            )
        return following

    def _send(
        self,
        method: str,
        path: str,
        ids: tuple[str | int | None, ...],
        *,
        query: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        writes: bool = False,
    ) -> tuple[httpx.Response, str]:
        """Send one request; return its response, and its name in messages."""
        name = f"{method} {path}".strip()
        url = self._url(path, ids, query)
        try:
            request = self._http.build_request(method, url, json=json, headers=headers)
        except ValueError:  # the message would quote the value
            raise PermanentError(
                f"the body of {name} to {self._provider} is not valid JSON: "
                "it has a number or a character that JSON lacks"
            ) from None
        return self._exchange(request, writes=writes), name

    def _url(
        self, path: str, ids: tuple[str | int | None, ...], query: Mapping[str, Any] | None
    ) -> httpx.URL:
        filled = fill_path(path, ids).encode("ascii")
        prefix, mark, own_query = self._base.raw_path.partition(b"?")
        if filled:
            prefix = prefix.rstrip(b"/") + filled
        try:
            url = self._base.copy_with(raw_path=prefix + mark + own_query)
            return url.copy_merge_params(
                {key: value for key, value in (query or {}).items() if value is not None}
            )
        except (ValueError, httpx.InvalidURL):  # the message would quote the value
            raise PermanentError(
                f"a value in the query of {path} is too long, or is not valid text"
            ) from None

    def _exchange(self, request: httpx.Request, *, writes: bool = False) -> httpx.Response:
        try:
            response = self._http.send(request)
        except Exception as error:
            failure = failure_from_exception(error)
            if failure is None:
                raise
            if writes and isinstance(failure, OutcomeUnknown):
                note_write()
            raise failure from error
        if writes and not 400 <= response.status_code < 500:
            note_write()
        return response

    def _result(
        self,
        response: httpx.Response,
        name: str,
        *,
        about_record: bool,
        holds: str | None = None,
        kind: type[Any] | None = None,
        may_be_empty: bool = False,
    ) -> Any:
        """Return the checked result of a response. Raise DeliveryError for any other response than a success."""
        self._raise_refusal(response)
        if not response.is_success:
            raise failure_from_status(
                response.status_code,
                f"{self._provider} returned {response.status_code} to {name}",
                parse_retry_after(response.headers.get("Retry-After")),
                about_record=about_record,
            )
        if may_be_empty and not response.content:
            return {}
        try:
            body = parse_json(response)
        except ValueError:
            raise OutcomeUnknown(
                f"the response to {name} is not JSON, so it is not from {self._provider}",
                reason="server_error",
            ) from None
        return checked_value(body, holds, kind, self._source(name))

    def _source(self, name: str) -> str:
        return f"{self._provider}'s response to {name}"

    def _raise_refusal(self, response: httpx.Response) -> None:
        failure = self._refusal(response) if self._refusal is not None else None
        if failure is not None:
            raise failure


def _without_effect(error: OutcomeUnknown) -> DeliveryError:
    """Return the error of a read: nothing happened, unless something was written before in the same attempt."""
    if has_written():
        return error
    return TransientError(error.detail, reason=error.reason, retry_after=error.retry_after)


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port

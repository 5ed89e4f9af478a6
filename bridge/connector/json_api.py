"""JSON over HTTP: a client for providers without an SDK that says of every failure whether anything happened.

A failed read had no effect, so a later attempt is safe. After a write, only a response proves the outcome. Messages of
errors name the provider, the status and the path without its IDs. They never repeat a response, which may contain
personal data.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from bridge.clock import uptime
from bridge.connector.deadline import attempt_deadline, has_written, note_write, remaining_seconds
from bridge.connector.egress import is_loopback
from bridge.connector.files import MAX_FILE_BYTES, FileContent, download_file
from bridge.connector.json_response import checked_value, json_object, parse_json, value_at
from bridge.connector.pagination import Pagination
from bridge.connector.request_path import fill_path
from bridge.connector.response_limits import MAX_RESPONSE_SECONDS
from bridge.connector.tokens import Token, TokenSource
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
from bridge.lazy import LazyModule

if TYPE_CHECKING:
    import httpx
else:
    httpx = LazyModule("httpx")

Refusal = Callable[["httpx.Response"], DeliveryError | None]
"""Returns the error that a response reports in the provider's own words; None leaves it to the HTTP status."""

MAX_PAGES = 20
"""Pages that `JsonApi.pages` reads, unless its caller sets another limit."""


class JsonApi:
    """A thread-safe client of one provider's JSON API. It repeats no failed request and follows no redirect.

    `provider` is its name in messages, `url` the base of all paths. The credentials are `bearer` (a fixed token),
    `basic` (user and password), one of `headers`, or the `token` that the function under `@connector.token` obtains:
    after a 401, which proves that nothing happened, a request is sent once more with a new one. `refusal` sees every
    response before its status is read, also those with 2xx, because some providers report errors with status 200.
    """

    def __init__(
        self,
        provider: str,
        url: str | SecretStr,
        *,
        bearer: str | SecretStr | None = None,
        basic: tuple[str, str | SecretStr] | None = None,
        token: TokenSource | None = None,
        headers: Mapping[str, str | SecretStr] | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        if sum(login is not None for login in (bearer, basic, token)) > 1:
            raise TypeError("JsonApi: pass one of bearer, basic and token")
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
        self._tokens = token
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
            response, name = self._send(method, path, ids, query=query, body={"json": json})
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
        form: Mapping[str, Any] | None = None,
        files: Mapping[str, FileContent] | None = None,
        content: FileContent | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        holds: str | None = None,
        may_be_empty: bool = False,
    ) -> Any:
        """Send a request that changes something, and return its result as `read` does.

        The body is `json`; a `form` (form-encoded, without fields that are None; a list is sent as one field per
        value); `files` by field name, multipart, together with the fields of `form`; or a file's `content` as it is.

        With `may_be_empty`, a success without a body (204) is an empty object. Raise OutcomeUnknown unless a response,
        or a connection that was never opened, proves the outcome: for a 5xx, a lost response, and a success that is not
        the provider's.
        """
        body = _body(json, form, files, content)
        if content is not None:
            headers = {"Content-Type": content.content_type} | dict(headers or {})
        response, name = self._send(method, path, ids, query=query, body=body, headers=headers, writes=True)
        return self._result(
            response, name, about_record=bool(ids), holds=holds, kind=kind, may_be_empty=may_be_empty
        )

    def download(self, url: str, *, max_bytes: int = MAX_FILE_BYTES, name: str | None = None) -> FileContent:
        """Return a file of the event, such as a recording, from any public host; see `download_file` for errors.

        The provider's credentials are not sent.
        """
        allow_loopback = is_loopback(self._base.host)
        return download_file(url, max_bytes=max_bytes, name=name, allow_loopback=allow_loopback)

    def pages(
        self,
        path: str,
        *ids: str | int | None,
        items: str | None,
        query: Mapping[str, Any] | None = None,
        cursor: tuple[str, str] | None = None,
        link: str | None = None,
        page_number: str | None = None,
        first_page: int = 1,
        offset: str | None = None,
        more: str | None = None,
        max_pages: int = MAX_PAGES,
        max_seconds: float = MAX_RESPONSE_SECONDS,
    ) -> Iterator[dict[str, Any]]:
        """Yield the objects of every page. `items` is the key of their list; None if the response is the list.

        | Argument | The next page is asked for with |
        |---|---|
        | `cursor=("meta.after", "page[after]")` | the cursor at that key, as that query parameter |
        | `link="links.next"` | the URL at that key, which must be on the same host |
        | `page_number="page"` | the number of the page as that query parameter, from `first_page` |
        | `offset="start"` | the number of objects so far as that query parameter |
        | none of them | the URL in the header `Link` |

        `more` is a key that is false on the last page. Without it, a list that is paged by number or offset ends with
        its first empty page: a short page proves nothing, because a provider may return fewer objects than asked for.

        Raise LookupInconclusive if there are more pages than `max_pages`, or if a page repeats: what was looked for may
        be on a page that was not read. Raise TransientError after `max_seconds` in total, or at the attempt's deadline.
        """
        paging = Pagination(cursor, link, page_number, offset, first_page)
        until = uptime() + remaining_seconds(max_seconds)
        url, name = paging.first(self._url(path, ids, query)), f"GET {path}"
        seen, count, previous = {url}, 0, None
        for number in range(1, max_pages + 1):
            page, response = self._page(url, name, until, about_record=bool(ids))
            found = self._items(page, items, name)
            if found and paging.is_counted and found == previous:
                raise self._repeats(name)
            yield from found
            count, previous = count + len(found), found
            if (more is not None and not value_at(page, more)) or (paging.is_counted and not found):
                return
            following = paging.following(
                url, page, response, pages=number, items=count, source=self._source(name)
            )
            if following is None:
                return
            self._require_own_host(following, name)
            if following in seen:
                raise self._repeats(name)
            seen.add(following)
            url = following
        raise LookupInconclusive(f"{self._provider} has more than {max_pages} pages for {name}")

    def _repeats(self, name: str) -> LookupInconclusive:
        return LookupInconclusive(f"{self._provider} repeats a page of {name}; its list cannot be read")

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

    def _require_own_host(self, url: httpx.URL, name: str) -> None:
        if _origin(url) != _origin(self._base) or url.userinfo:
            raise PermanentError(
                f"{self._provider}'s next page for {name} is on another host, which does not get the "
                "credentials; check the URL of the connection",
                code="host",
            )

    def _send(
        self,
        method: str,
        path: str,
        ids: tuple[str | int | None, ...],
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        writes: bool = False,
    ) -> tuple[httpx.Response, str]:
        """Send one request; return its response, and its name in messages."""
        name = f"{method} {path}".strip()
        url = self._url(path, ids, query)
        try:
            request = self._http.build_request(method, url, headers=headers, **(body or {}))
        except ValueError:  # the message would quote the value
            raise PermanentError(
                f"the body of {name} to {self._provider} has a number or a character that JSON and forms lack"
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
        if self._tokens is None:
            return self._transmit(request, writes=writes)
        token = self._tokens.current()
        response = self._transmit(_authorized(request, token), writes=writes)
        if response.status_code != 401:
            return response
        return self._transmit(_authorized(request, self._tokens.current(refused=token)), writes=writes)

    def _transmit(self, request: httpx.Request, *, writes: bool) -> httpx.Response:
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


def _body(
    json: Any,
    form: Mapping[str, Any] | None,
    files: Mapping[str, FileContent] | None,
    content: FileContent | None,
) -> dict[str, Any]:
    """Return the body of a request as arguments of httpx."""
    if sum((json is not None, form is not None or files is not None, content is not None)) > 1:
        raise TypeError("JsonApi.write: pass one of json, content, and form with files")
    if content is not None:
        return {"content": content.content}
    body: dict[str, Any] = {"json": json} if json is not None else {}
    if form is not None:
        body["data"] = {name: value for name, value in form.items() if value is not None}
    if files is not None:
        body["files"] = {name: (file.name, file.content, file.content_type) for name, file in files.items()}
    return body


def _without_effect(error: OutcomeUnknown) -> DeliveryError:
    """Return the error of a read: nothing happened, unless something was written before in the same attempt."""
    if has_written():
        return error
    return TransientError(error.detail, reason=error.reason, retry_after=error.retry_after)


def _authorized(request: httpx.Request, token: Token) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token.access.get_secret_value()}"
    return request


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port

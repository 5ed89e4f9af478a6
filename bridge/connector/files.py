"""Files of an event, such as a recording: downloaded from a public host, bounded in size and time, and sent on.

The URL is data of an event, so its sender chooses it. Only https and public addresses are fetched,
redirects included, and no credentials are sent. The whole file is kept in memory while it is uploaded, because most
providers want its length first: the memory of a worker grows by `max_bytes` times the connection's concurrency at most.
"""

from __future__ import annotations

import ipaddress
import mimetypes
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from bridge.connector.deadline import check_deadline, has_written
from bridge.connector.egress import is_loopback
from bridge.connector.public_addresses import is_public, send_to_verified
from bridge.connector.response_limits import ResponseTooLarge
from bridge.connector.transport import failure_from_exception, http_client, parse_retry_after
from bridge.errors import DeliveryError, OutcomeUnknown, PermanentError, TransientError
from bridge.lazy import LazyModule

if TYPE_CHECKING:
    import httpx
else:
    httpx = LazyModule("httpx")

MAX_FILE_BYTES = 20 * 1024 * 1024
"""Largest file that is downloaded, unless the connector sets another limit: about 40 minutes of MP3 at 64 kbit/s."""
MAX_NAME_LENGTH = 100
"""Characters of a file name."""
_HEADER_BYTES = 64 * 1024
_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_CONTENT_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}")


@dataclass(frozen=True)
class FileContent:
    """A file with its content, for `JsonApi.write(..., content=file)` or `files={"file": file}`."""

    name: str
    """Name of the file, without folders."""
    content: bytes = field(repr=False)
    """The bytes of the file."""
    content_type: str = "application/octet-stream"
    """Its media type."""


def download_file(
    url: str, *, max_bytes: int = MAX_FILE_BYTES, name: str | None = None, allow_loopback: bool = False
) -> FileContent:
    """Download a file from a URL of an event. By default, its name is the last part of the URL's path.

    `allow_loopback` is for connections whose provider is itself on loopback, that is, for the sandbox and for tests.
    Raise PermanentError if the URL is not https, its host not public, the file too large (`code="size"`) or not
    available (`code="404"`); TransientError if a later attempt can succeed. After a write in the same attempt, what
    would be a TransientError is OutcomeUnknown.
    """
    try:
        return _download(url, max_bytes, name, allow_loopback=allow_loopback)
    except (TransientError, OutcomeUnknown) as error:
        raise _of_download(error) from error
    except PermanentError:
        raise
    except Exception as error:
        if _is_too_large(error):
            raise _too_large(max_bytes) from error
        failure = failure_from_exception(error)
        if failure is None:
            raise
        raise _of_download(failure) from error


def _download(url: str, max_bytes: int, name: str | None, *, allow_loopback: bool) -> FileContent:
    target = _checked(url, allow_loopback=allow_loopback)
    with http_client(
        limits=httpx.Limits(max_keepalive_connections=0), max_response_bytes=max_bytes + _HEADER_BYTES
    ) as client:
        for _ in range(_MAX_REDIRECTS + 1):
            response = send_to_verified(client, "GET", target, headers={})
            try:
                if response.status_code in _REDIRECTS:
                    location = response.headers.get("Location", "")
                    target = _checked(str(_joined(target, location)), allow_loopback=allow_loopback)
                    continue
                if response.status_code != 200:
                    raise _failure_from_status(response)
                content = _content(response, max_bytes)
            finally:
                response.close()
            content_type = _content_type(response)
            return FileContent(name or _name_of(target, content_type), content, content_type)
    raise PermanentError("the file's URL redirects too often", code="redirect")


def _checked(url: str, *, allow_loopback: bool) -> httpx.URL:
    """Return a URL that may be fetched, apart from what its host name resolves to."""
    try:
        target = httpx.URL(url)
        host = target.host  # decoded here, which fails for a wrong international name
    except (httpx.InvalidURL, TypeError, ValueError):
        raise PermanentError("the file's URL is not valid", code="url") from None
    if not host or target.userinfo:
        raise PermanentError("the file's URL needs a host, and no user or password", code="url")
    if is_loopback(host):
        if allow_loopback and target.scheme in ("http", "https"):
            return target
        raise PermanentError("the file's URL leads to this machine, which is not allowed", code="host")
    if target.scheme != "https":
        raise PermanentError("the file's URL must start with https://", code="url")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return target
    if not is_public(address):
        raise PermanentError("the file's URL leads to a private address, which is not allowed", code="host")
    return target


def _joined(target: httpx.URL, location: str) -> httpx.URL:
    try:
        return target.join(location)
    except (httpx.InvalidURL, ValueError):
        raise PermanentError("the file's URL redirects to an invalid one", code="url") from None


def _content(response: httpx.Response, max_bytes: int) -> bytes:
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    content = bytearray()
    for part in response.iter_raw():
        check_deadline()
        content += part
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(content)


def _too_large(max_bytes: int) -> PermanentError:
    return PermanentError(f"the file has more than {max_bytes // (1024 * 1024)} MiB", code="size")


def _is_too_large(error: BaseException | None) -> bool:
    """Return whether the transport stopped the response at its limit; httpx reports that as an error of its own."""
    while error is not None:
        if isinstance(error, ResponseTooLarge) or any(
            isinstance(arg, ResponseTooLarge) for arg in error.args
        ):
            return True
        error = error.__cause__
    return False


def _failure_from_status(response: httpx.Response) -> DeliveryError:
    status = response.status_code
    detail = f"the file's server answered {status}"
    if status == 429 or status >= 500 or status in (408, 425) or status < 400:
        wait = parse_retry_after(response.headers.get("Retry-After"))
        return TransientError(detail, reason="server_error", retry_after=wait)
    # Never AuthenticationError: the URL is the event's, not a setting of the connection.
    return PermanentError(detail, code=str(status))


def _of_download(error: DeliveryError) -> DeliveryError:
    """Return the error of a download: nothing happened, unless something was written before in the same attempt."""
    kind = OutcomeUnknown if has_written() else TransientError
    detail = error.detail if error.detail.startswith("the file") else f"the file's download: {error.detail}"
    return kind(detail, reason=error.reason, retry_after=error.retry_after)


def _content_type(response: httpx.Response) -> str:
    found = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return found if _CONTENT_TYPE.fullmatch(found) else "application/octet-stream"


def _name_of(url: httpx.URL, content_type: str) -> str:
    """Return the last part of the path as a file name, with an extension for its type if it has none."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", unquote(url.path.rsplit("/", 1)[-1])).strip("._") or "file"
    if "." not in name:
        name += mimetypes.guess_extension(content_type) or ""
    return name[-MAX_NAME_LENGTH:]

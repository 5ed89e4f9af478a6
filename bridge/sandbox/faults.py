"""Fault injection: failures between the bridge and a mock provider, and how often each occurs."""

from __future__ import annotations

import threading
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

ProviderName = Literal[
    "hubspot", "salesforce", "pipedrive", "zendesk", "twilio", "slack", "teams", "heppu", "email"
]

HANG_SECONDS = 60.0
"""A hanging request is held this long, unless the client disconnects earlier."""


HostileResponse = Literal["drips", "drips_headers", "endless", "huge", "huge_headers", "gzip_bomb"]


class Fault(BaseModel):
    """A failure of `provider` that affects the next `times` matching requests (None: until cleared).

    `path` is a pattern (`*` matches anything) for the path below the provider's prefix, without the query. For
    email, `method` is the SMTP verb (CONNECT, AUTH, MAIL, RCPT, DATA; the last three are requests), `path` the
    recipient (for MAIL the sender), `status` the reply code and `body` its text.

    The failures, in the order in which they apply:

    - `delay`: wait this many seconds before anything else.
    - `quota`: allow this many requests, then respond with the provider's own quota error.
    - `status`: respond with this status and the provider's own error body (or `body` and `headers`), without
      processing the request.
    - `hang`: do not process the request and do not respond until the client disconnects or a minute has passed.
    - `drop`: close the connection without a response, `before` or `after` processing the request. With
      `drop="after"`, `status` and `hang` also apply after processing: the request takes effect, and the client
      gets `status` or no response.
    - `response`: process the request (unless `status` is set) and send the response in a way that a client has to
      survive. `drips`: byte by byte, without end. `drips_headers`: the headers do. `endless`: as fast as the client
      reads. `huge`: 700 MB, as announced. `huge_headers`: headers of 8 MB. `gzip_bomb`: 1 MB that decompresses to
      1 GB. Email has `drips` and `endless`: a reply of many lines.
    - `lag`: while the fault is active, searches do not see anything written in the last `lag` seconds.
    """

    model_config = ConfigDict(extra="forbid")

    provider: ProviderName
    path: str = "*"
    method: str | None = None
    times: int | None = Field(1, ge=1)
    status: int | None = Field(None, ge=200, le=599)
    body: Any = None
    headers: dict[str, str] = {}
    delay: float | None = Field(None, ge=0)
    retry_after: float | None = Field(None, ge=0)
    drop: Literal["before", "after"] | None = None
    hang: bool = False
    response: HostileResponse | None = None
    lag: float | None = Field(None, ge=0)
    quota: int | None = Field(None, ge=0)

    _remaining: int | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _require_fault_kind(self) -> Self:
        if self.status is None and (self.retry_after is not None or self.body is not None or self.headers):
            self.status = 200 if self.retry_after is None else 429
        kinds = (self.status, self.delay, self.drop, self.response, self.lag, self.quota)
        if all(value is None for value in kinds) and not self.hang:
            raise ValueError(
                "a fault needs one of status, delay, retry_after, body, drop, hang, response, lag, quota"
            )
        if self.hang and self.status is not None:
            raise ValueError("a request that hangs cannot have a status")
        if self.response is not None and (self.hang or self.drop):
            raise ValueError("a request that hangs or is dropped has no response")
        if self.provider == "email" and self.response not in (None, "drips", "endless"):
            raise ValueError("email has only the responses drips and endless")
        self._remaining = self.quota if self.quota is not None else self.times
        return self

    @property
    def remaining(self) -> int | None:
        """The number of requests that it will still affect. None means all of them."""
        return None if self.lag is not None else self._remaining

    def matches(self, provider: str, method: str, path: str) -> bool:
        """Return whether the fault applies to the request."""
        return (
            self.provider == provider
            and (self.method is None or self.method.upper() == method.upper())
            and fnmatchcase(path, self.path)
        )


class Faults:
    """The active faults, oldest first. Thread-safe."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Activate `fault` and return it."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def active(self) -> list[Fault]:
        """Return the faults that can still affect a request."""
        with self._lock:
            return list(self._faults)

    def lag(self, provider: str) -> float:
        """Return the seconds until a change is visible to the provider's search."""
        with self._lock:
            return max((fault.lag or 0 for fault in self._faults if fault.provider == provider), default=0)

    def spend_quota(self, provider: str, method: str, path: str) -> bool:
        """Count one request against the quota. Return False if the quota was used up."""
        with self._lock:
            allowed = True
            for fault in self._faults:
                if fault.quota is None or not fault.matches(provider, method, path):
                    continue
                if fault._remaining:
                    fault._remaining -= 1
                else:
                    allowed = False
            return allowed

    def take(self, provider: str, method: str, path: str) -> Fault | None:
        """Return the fault for this request, if any. Remove the fault if this was its last request."""
        with self._lock:
            for fault in self._faults:
                if fault.lag is not None or fault.quota is not None:
                    continue
                if not fault.matches(provider, method, path):
                    continue
                if fault._remaining is not None:
                    fault._remaining -= 1
                    if fault._remaining == 0:
                        self._faults.remove(fault)
                return fault
        return None

"""Faults on demand: what goes wrong between the bridge and a partner, and how often."""

from __future__ import annotations

import threading
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

PARTNERS = ("hubspot", "salesforce", "twilio", "slack", "heppu", "email")

HANG_SECONDS = 60.0
"""How long a request that hangs is held when the client does not leave before."""


class Fault(BaseModel):
    """One thing that goes wrong at `partner`, for the next `times` requests that fit (None: until cleared).

    `path` is a pattern (`*` fits anything) for the path below the partner's prefix, without the query. For
    e-mail, `method` is the SMTP verb (CONNECT, AUTH, MAIL, RCPT, DATA; the last three are requests), `path` the
    recipient (with MAIL the sender), `status` the reply code and `body` its text.

    What can go wrong, in the order in which it is played: `delay` seconds before anything else; `quota` requests
    are left and then the partner's own quota error is answered; an answer of `status` with the partner's own
    error body (or `body`, `headers`) without the effect; `hang`: no effect and no answer until the client leaves
    or a minute is over; `drop`: the connection is cut without an answer, `before` or `after` the effect. With
    `drop="after"` the other two come after the effect as well: it happens, and the client is told `status`, or
    hangs. `lag`: for as long as the fault stands, searches do not see what
    was written in the last `lag` seconds.
    """

    model_config = ConfigDict(extra="forbid")

    partner: Literal["hubspot", "salesforce", "twilio", "slack", "heppu", "email"]
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
    lag: float | None = Field(None, ge=0)
    quota: int | None = Field(None, ge=0)

    _left: int | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.status is None and (self.retry_after is not None or self.body is not None or self.headers):
            self.status = 200 if self.retry_after is None else 429
        wrong = (self.status, self.delay, self.drop, self.lag, self.quota)
        if all(value is None for value in wrong) and not self.hang:
            raise ValueError("a fault needs one of status, delay, retry_after, body, drop, hang, lag, quota")
        if self.hang and self.status is not None:
            raise ValueError("a request that hangs gets no status")
        self._left = self.quota if self.quota is not None else self.times
        return self

    @property
    def left(self) -> int | None:
        """How many requests it will still meet; None: all of them."""
        return None if self.lag is not None else self._left

    def fits(self, partner: str, method: str, path: str) -> bool:
        """Whether the request is one of those that it is meant for."""
        return (
            self.partner == partner
            and (self.method is None or self.method.upper() == method.upper())
            and fnmatchcase(path, self.path)
        )


class Faults:
    """The faults that stand, oldest first; safe from any thread."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """From now on, play `fault`."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Everything works again."""
        with self._lock:
            self._faults.clear()

    def standing(self) -> list[Fault]:
        """The faults that are not used up."""
        with self._lock:
            return list(self._faults)

    def lag(self, partner: str) -> float:
        """For how many seconds the partner's search index does not see a change."""
        with self._lock:
            return max((fault.lag or 0 for fault in self._faults if fault.partner == partner), default=0)

    def quota_left(self, partner: str, method: str, path: str) -> bool:
        """Count one request against the quota; False when there was none left."""
        with self._lock:
            allowed = True
            for fault in self._faults:
                if fault.quota is None or not fault.fits(partner, method, path):
                    continue
                if fault._left:
                    fault._left -= 1
                else:
                    allowed = False
            return allowed

    def take(self, partner: str, method: str, path: str) -> Fault | None:
        """The fault that this request meets; one that is used up is gone."""
        with self._lock:
            for fault in self._faults:
                if fault.lag is not None or fault.quota is not None:
                    continue
                if not fault.fits(partner, method, path):
                    continue
                if fault._left is not None:
                    fault._left -= 1
                    if fault._left == 0:
                        self._faults.remove(fault)
                return fault
        return None

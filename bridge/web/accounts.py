"""Accounts: what the pages of connections show about the accounts of this process, without any value of a setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Setting(NamedTuple):
    """A variable of an account."""

    variable: str
    is_set: bool


@dataclass(frozen=True)
class AccountInfo:
    """An account of this process."""

    connector: str
    settings: Sequence[Setting]
    per_second: float | None
    """Requests per second that all workers share; None if there is no known limit."""
    concurrency: int
    timeout: float
    """Seconds that one attempt may take."""


class CheckResult(NamedTuple):
    """The result of logging in to an account and reading what its actions need."""

    ok: bool
    text: str


class AccountDirectory(Protocol):
    """The accounts of this process."""

    def describe(self, name: str) -> AccountInfo | None:
        """Return an account; None if this process does not have it."""

    def check(self, name: str) -> CheckResult | None:
        """Log in to an account, without writing to it; None if this process does not have it."""

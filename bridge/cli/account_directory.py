"""The accounts of a server for its dashboard: their settings by name, and a check on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from bridge.cli.account_check import check_accounts
from bridge.connector.discovery import variable_names
from bridge.rules.action_uses import action_uses
from bridge.rules.model import Rules
from bridge.web.accounts import AccountInfo, CheckResult, Setting
from bridge.worker.account import Account


class ServerAccounts:
    """Describes and checks the accounts that are open in this process."""

    def __init__(
        self, find: Callable[[str], Account | None], rules: Callable[[], Rules], environ: Mapping[str, str]
    ) -> None:
        self._find = find
        self._rules = rules
        self._environ = environ
        self._checking = threading.Lock()

    def describe(self, name: str) -> AccountInfo | None:
        """Return an account; None if this process does not have it."""
        account = self._find(name)
        if account is None:
            return None
        given = {variable.removesuffix("_FILE") for variable in self._environ}
        variables = variable_names(account.connector, name, self._environ)
        settings = [Setting(variable, variable in given) for variable in variables]
        limits = account.limits
        return AccountInfo(
            account.connector.name, settings, limits.per_second, limits.concurrency, limits.timeout
        )

    def check(self, name: str) -> CheckResult | None:
        """Log in to an account, without writing to it; None if this process does not have it. One at a time."""
        account = self._find(name)
        if account is None:
            return None
        with self._checking:
            used, uses = {name: account.connector}, action_uses(self._rules())
            result = check_accounts(used, uses, self._environ)[0]
        return CheckResult(result.ok, result.text)

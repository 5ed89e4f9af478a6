"""Accounts of one process: opens those that the rules and unfinished deliveries use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bridge.connector import Connector
from bridge.connector.action_name import ActionName
from bridge.connector.discovery import Registry, read_settings
from bridge.errors import ConfigError
from bridge.rules.late import DETAILS, DETAILS_CONNECTION, using
from bridge.rules.model import Rules
from bridge.store.connections import register_accounts
from bridge.store.database import Database
from bridge.store.queries import other_connections_in_use
from bridge.telemetry import log
from bridge.worker.account import Account, Accounts, shared_token_store


def connections_used_by(rules: Rules, registry: Registry) -> dict[str, Connector]:
    """Return the connections that enabled rules, alerts and the policy use. Only their connectors are imported."""
    steps = [step for rule in rules.rules if rule.enabled for step in rule.steps]
    names = {name: step.action.connector for step in (*steps, *rules.alerts) for name in step.connections}
    names |= rules.messaging.crm_opt_outs
    if any(using(DETAILS, step.late) for step in steps):
        names[DETAILS_CONNECTION] = DETAILS_CONNECTION
    return {connection: registry.connector(connector) for connection, connector in names.items()}


class AccountOpener:
    """Opens the accounts of one process and registers their connections; `accounts` has those that are open."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        environ: Mapping[str, str],
        *,
        required: bool,
        token_keys: Sequence[str] = (),
    ) -> None:
        """With `required`, a connection of the rules without settings is an error; otherwise it is left out.

        `token_keys` encrypt the connections' tokens.
        """
        self.accounts: Final = Accounts()
        self._database = database
        self._registry = registry
        self._environ = environ
        self._required = required
        self._token_keys = token_keys

    def open_used(self, rules: Rules) -> None:
        """Open the accounts that these rules are the first to use. Raise ConfigError naming every missing variable."""
        used = connections_used_by(rules, self._registry)
        connectors = {name: used[name] for name in sorted(used) if self.accounts.get(name) is None}
        self._reject_retired_variables(connectors)
        errors = self._open(connectors, all_or_none=self._required)
        if errors and self._required:
            raise ConfigError("\n".join(f"connection {name}: {error}" for name, error in errors.items()))

    def open_unfinished(self) -> None:
        """Open the accounts of unfinished deliveries of earlier rules, and log those that cannot be opened."""
        connectors = {}
        for name, action in other_connections_in_use(self._database, self.accounts.all()):
            try:
                connectors[name] = self._registry.connector(ActionName.parse(action).connector)
            except (KeyError, ConfigError) as error:
                _warn_unavailable(name, error)
        errors = self._open(connectors)
        if self._required:
            for name, missing in errors.items():
                _warn_unavailable(name, missing)

    def _open(
        self, connectors: Mapping[str, Connector], *, all_or_none: bool = False
    ) -> dict[str, ConfigError]:
        """Open these accounts; return the errors of those that cannot be opened."""
        opened, errors = {}, {}
        for name, connector in connectors.items():
            try:
                settings = read_settings(connector, name, self._environ)
                store = shared_token_store(self._database, connector, name, settings, self._token_keys)
                opened[name] = Account(name, connector, settings, store)
            except ConfigError as error:
                errors[name] = error
        if opened and not (errors and all_or_none):
            register_accounts(self._database, {name: account.fingerprint for name, account in opened.items()})
            self.accounts.add(opened)
        return errors

    def _reject_retired_variables(self, connectors: Mapping[str, Connector]) -> None:
        """Raise ConfigError for variables under an old name, even if a process that only receives needs no accounts."""
        messages = [
            message
            for name, connector in connectors.items()
            for message in connector.settings.retired_variables(
                self._environ, connector.settings.prefix(name)
            )
        ]
        if messages:
            raise ConfigError("; ".join(messages))


def _warn_unavailable(name: str, error: Exception) -> None:
    log.warning(
        "connection unavailable",
        connection=name,
        error=str(error),
        advice=f"its deliveries stay pending: see `bridge deliveries --connection {name}`",
    )

"""Links to the providers, by the connectors' own hooks: the page of a record, and where to look for one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.connector import Connector, ProviderRecord, UncertainDelivery, WhereToLook
from bridge.connector.action_name import ActionName
from bridge.connector.context import idempotency_token
from bridge.connector.provider_records import RecordLink, provider_label, safe_url
from bridge.contacts.address import address_key
from bridge.contacts.parse import Contact
from bridge.store.contact_cache import cached_crm_records
from bridge.store.database import Database
from bridge.store.schema import ERASED
from bridge.telemetry import log


class LinkedAccount(Protocol):
    """The part of a connection of this process that its links need."""

    @property
    def connector(self) -> Connector:
        """The connector, which has the hooks."""
        ...

    @property
    def settings(self) -> Any:
        """The settings, which contain the address of the account."""
        ...


@dataclass(frozen=True)
class ProviderLinks:
    """The hooks of the connections that `find_account` returns at the time of the request; others have no links."""

    find_account: Callable[[str], LinkedAccount | None] = lambda _: None

    def record_url(self, connection: str, action: str, external_id: str | None) -> str | None:
        """Return the page of a record at the provider, if its connector knows one. It is https, and safe to link to."""
        account = self.find_account(connection)
        if account is None or account.connector.build_record_url is None or not external_id:
            return None
        record = ProviderRecord(ActionName.parse(action).action or action, external_id)
        try:
            return safe_url(account.connector.build_record_url(account.settings, record))
        except Exception:
            log.exception("record_url of a connector failed", connection=connection)
            return None

    def crm_record(self, database: Database, contact: Contact) -> RecordLink | None:
        """Return the page of a contact's record in a CRM, if one has been found before: by email, or else by phone."""
        keys = [address_key(address) for address in (contact.email, contact.phone) if address]
        if not keys:
            return None
        with database.read() as conn:
            records = cached_crm_records(conn, keys, database.now(conn))
        for record in sorted(records, key=lambda record: keys[0] not in record.addresses):
            url = self.record_url(record.connection, f"{record.connection}.contact", record.external_id)
            account = self.find_account(record.connection)
            if url is not None and account is not None:
                return RecordLink(f"Open in {provider_label(account.connector.name)}", url)
        return None

    def where_to_look(self, delivery: Mapping[str, Any]) -> WhereToLook:
        """Say where an operator sees whether a delivery took effect. `params` may be JSON text or parsed."""
        name = ActionName.parse(delivery["action"])
        account = self.find_account(delivery["connection"])
        found = None
        if account is not None and account.connector.describe_where_to_look is not None:
            params = delivery["params"]
            params = json.loads(params) if isinstance(params, str) else params
            uncertain = UncertainDelivery(
                name.action,
                {} if params == json.loads(ERASED) else params,
                idempotency_token(delivery["idempotency_key"]),
                delivery["conversation"],
            )
            try:
                found = account.connector.describe_where_to_look(account.settings, uncertain)
            except Exception:
                log.exception("where_to_look of a connector failed", connection=delivery["connection"])
        if found is None:
            return WhereToLook(f"Check at {provider_label(name.connector)} whether it is there.")
        return WhereToLook(found.text, safe_url(found.url))

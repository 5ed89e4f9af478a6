"""Client of one HubSpot account: reads and writes records of any type."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import urllib3
from hubspot import HubSpot
from hubspot.discovery.discovery_base import DiscoveryBase
from urllib3.util.retry import Retry

from bridge.connector import Success, check_deadline, enforce_deadline, remaining_seconds
from bridge.errors import ConfigError, DeliveryError

from .errors import failure_in_batch, is_conflict, not_from_hubspot, status_of
from .settings import Settings, connector
from .unique_properties import UNIQUE_PROPERTIES, UniqueProperties

_PROPERTY_CACHE_SECONDS = 600.0
BATCH_SIZE = 100
"""HubSpot's limit for one batch request."""
CONTACT_ASSOCIATION_TYPES = {"calls": 194, "notes": 202, "tasks": 204}
"""HubSpot's association type IDs from each object type to contacts. The opposite direction has other IDs."""


class DeadlinePool(urllib3.PoolManager):
    """Connection pool for all requests of the account, which end within the attempt's deadline without retries."""

    def __init__(self, version: str) -> None:
        super().__init__(num_pools=2, maxsize=connector.limits.concurrency, retries=Retry(0))
        enforce_deadline(self)
        self._version = version

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send one request. Redirects are not followed: they would send the token to another host."""
        del redirect
        # The SDK has the numbered versions, which HubSpot supports until 2027.
        url = re.sub(r"/crm/v\d/(\w+)", rf"/crm/\1/{self._version}", url, count=1)
        check_deadline()
        options["timeout"] = urllib3.Timeout(
            connect=max(0.05, remaining_seconds(3)), read=max(0.05, remaining_seconds(20))
        )
        response = super().urlopen(method, url, redirect=False, **options)
        if 200 <= response.status < 300 and response.data.lstrip()[:1] != b"{":
            raise not_from_hubspot()  # an HTML page with status 200, which the SDK reads as an empty record
        return response


@dataclass(frozen=True)
class Record:
    """The desired properties and contact of a call, note or task."""

    properties: Mapping[str, str]
    contact_id: str | None


class Account:
    """Client of one HubSpot account, over one connection pool."""

    def __init__(self, settings: Settings) -> None:
        pool = DeadlinePool(settings.api_version)

        def create_api(package: Any, name: str, config: dict[str, Any]) -> Any:
            api = DiscoveryBase._default_api_factory(package, name, config)
            api.api_client.rest_client.pool_manager = pool
            api.api_client.call_api = require_response(api.api_client.call_api)
            return api

        self.settings = settings
        self.token = settings.access_token.get_secret_value()
        crm = HubSpot(access_token=self.token, host=settings.url, retry=Retry(0), api_factory=create_api).crm
        # The SDK creates a new object with a new pool each time one of these attributes is accessed.
        self.objects = crm.objects.basic_api
        self.batch = crm.objects.batch_api
        self.search = crm.objects.search_api
        self._properties = crm.properties.core_api
        self.unique_properties = UniqueProperties(self._properties)
        self.pipelines = crm.pipelines.pipelines_api
        self.associations = crm.associations.v4.basic_api
        self.has_phone_property = True
        self._boolean_properties: dict[str, float] = {}
        self.close = pool.clear

    def upsert(self, kind: str, records: Mapping[str, Record]) -> dict[str, Success | DeliveryError]:
        """Create each record, or update the record with its key. If none exists yet, this takes one request."""
        response = None
        try:
            response = self._create(kind, records)
        except Exception as error:
            if not is_conflict(error):
                raise
        results = {
            key: Success(id=record_id) for key, record_id in self._ids_by_key(kind, records, response).items()
        }
        remaining = [key for key in records if key not in results]
        if not remaining:
            return {**results}
        key_property = UNIQUE_PROPERTIES[kind][0]
        existing = {
            str(item.properties.get(key_property)): str(item.id)
            for item in self.read(kind, remaining, key_property)
        }
        results |= self.update(
            kind, {existing[key]: (key, records[key].properties) for key in remaining if key in existing}
        )
        missing = {key: records[key] for key in remaining if key not in results}
        if missing and response is None:
            response = self._create(kind, missing)
            created = self._ids_by_key(kind, missing, response)
            results |= {key: Success(id=record_id) for key, record_id in created.items()}
        failure = failure_in_batch(response)
        return {key: results.get(key, failure) for key in records}

    def update(self, kind: str, changes: Mapping[str, tuple[str, Mapping[str, str]]]) -> dict[str, Success]:
        """Update records, given as ID -> (key, properties), and return a result per key. Deleted ones are omitted."""
        if not changes:
            return {}
        inputs = [
            {"id": record_id, "properties": dict(properties)}
            for record_id, (_, properties) in changes.items()
        ]
        try:
            response = self.batch.update(kind, {"inputs": inputs})
        except Exception as error:
            if status_of(error) != 404:
                raise
            return {}
        return {
            changes[str(item.id)][0]: Success(id=str(item.id), detail="updated")
            for item in response.results
            if str(item.id) in changes
        }

    def read(
        self, kind: str, ids: Iterable[str], id_property: str | None = None, fields: Iterable[str] = ()
    ) -> list[Any]:
        """Return the existing records among `ids`. Unlike HubSpot's search, reading by ID or unique property is
        always current."""
        body = {
            "inputs": [{"id": value} for value in dict.fromkeys(ids)],
            "properties": [*fields, *([id_property] if id_property else [])],
            "propertiesWithHistory": [],
        }
        response = self.batch.read(kind, body | ({"idProperty": id_property} if id_property else {}))
        return list(response.results or ())

    def require_boolean_property(self, name: str) -> None:
        """Raise ConfigError unless contacts have this property and it is a checkbox.

        HubSpot ignores unknown properties in a read, so a misspelled name would mean that no contact has the flag.
        """
        if self._boolean_properties.get(name, 0.0) > time.monotonic():
            return
        try:
            definition = self._properties.get_by_name("contacts", name)
        except Exception as error:
            if status_of(error) != 404:
                raise
            raise ConfigError(
                f"HubSpot's contacts have no property {name}: set HUBSPOT_DO_NOT_CALL_PROPERTY to its internal name"
            ) from error
        if definition.field_type != "booleancheckbox":
            raise ConfigError(
                f"the property {name} in HubSpot is not a single checkbox: set HUBSPOT_DO_NOT_CALL_PROPERTY to one"
            )
        self._boolean_properties[name] = time.monotonic() + _PROPERTY_CACHE_SECONDS

    def listed_scopes(self) -> list[str] | None:
        """Return the scopes of a private app's token. None: HubSpot does not list them for this key."""
        path = "/oauth/v2/private-apps/get/access-token-info"
        try:
            token_info = self.call_api(path, "POST", {"tokenKey": self.token})
        except Exception as error:
            if status_of(error) not in (400, 401, 403, 404):
                raise
            return None
        return [str(scope) for scope in token_info.get("scopes") or ()] or None

    def call_api(self, path: str, method: str, body: Any = None) -> Any:
        """Return the JSON response of an endpoint that the SDK does not have."""
        return self.objects.api_client.call_api(
            path,
            method,
            header_params={"Content-Type": "application/json"},
            body=body,
            response_types_map={200: "object"},
            auth_settings=["oauth2"],
            _return_http_data_only=True,
        )

    def deleted_contacts(self, ids: Sequence[str]) -> set[str]:
        """Return the contacts among `ids` that were deleted or merged into another contact."""
        return set(ids) - {str(item.id) for item in self.read("contacts", ids)} if ids else set()

    def _create(self, kind: str, records: Mapping[str, Record]) -> Any:
        inputs: list[dict[str, Any]] = []
        for key, record in records.items():
            association = {
                "associationCategory": "HUBSPOT_DEFINED",
                "associationTypeId": CONTACT_ASSOCIATION_TYPES[kind],
            }
            inputs.append(
                {
                    "properties": {**record.properties, UNIQUE_PROPERTIES[kind][0]: key},
                    "associations": [{"to": {"id": record.contact_id}, "types": [association]}]
                    if record.contact_id
                    else [],
                }
            )
        return self.unique_properties.run_with(kind, lambda: self.batch.create(kind, {"inputs": inputs}))

    def _ids_by_key(self, kind: str, records: Mapping[str, Record], response: Any) -> dict[str, str]:
        items = [item for item in (response.results if response is not None else None) or () if item.id]
        if len(records) == 1 and len(items) == 1:
            return {next(iter(records)): str(items[0].id)}
        ids = {str((item.properties or {}).get(UNIQUE_PROPERTIES[kind][0])): str(item.id) for item in items}
        return {key: ids[key] for key in records if key in ids}


def require_response(call: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an SDK call to raise OutcomeUnknown instead of returning None for an unexpected success status."""

    def wrapper(*args: Any, **options: Any) -> Any:
        response = call(*args, **options)
        if response is None:
            raise not_from_hubspot()
        return response

    return wrapper


@connector.client
def client(settings: Settings) -> Account:
    """Return the account's client, whose requests end within the attempt's deadline."""
    return Account(settings)

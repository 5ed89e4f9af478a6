"""Client of one HubSpot account: reads and writes records of any type."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from typing import Any
from zoneinfo import ZoneInfo

from bridge.connector import SearchLimiter, Success
from bridge.errors import ConfigError

from .call_outcomes import CallOutcomes
from .errors import not_from_hubspot, status_of
from .lists import Lists
from .missing_scopes import MissingScopes
from .owners import Owners
from .pipeline_stages import PipelineStages
from .settings import Settings, connector
from .unique_properties import UniqueProperties

_PROPERTY_CACHE_LIFETIME = timedelta(minutes=10)
BATCH_SIZE = 100
"""HubSpot's limit for one batch request."""


@cache
def _user_agent() -> str:
    return f"hubspot-api-client-python; {version('hubspot-api-client')}"


class Account:
    """Client of one HubSpot account, over one connection pool."""

    def __init__(self, settings: Settings) -> None:
        from hubspot import HubSpot
        from urllib3.util.retry import Retry

        from .connection_pool import open_pool

        pool = open_pool(settings)

        def create_api(package: Any, name: str, config: dict[str, Any]) -> Any:
            # The SDK's own factory reads the SDK's version from a file for each API, which takes 6 of 7 ms.
            configuration = package.Configuration(host=config["host"])
            configuration.access_token, configuration.retries = config["access_token"], config["retry"]
            client = package.ApiClient(configuration)
            client.user_agent = _user_agent()
            client.rest_client.pool_manager = pool
            client.call_api = require_response(client.call_api)
            return getattr(package, name)(client)

        self.settings = settings
        self.token = settings.access_token.get_secret_value()
        crm = HubSpot(access_token=self.token, host=settings.url, retry=Retry(0), api_factory=create_api).crm
        # The SDK creates a new object with a new pool each time one of these attributes is accessed.
        self.objects = crm.objects.basic_api
        self.batch = crm.objects.batch_api
        self.search = crm.objects.search_api
        self.search_limiter = SearchLimiter(settings.searches_per_second)
        self._properties = crm.properties.core_api
        self.unique_properties = UniqueProperties(self._properties)
        self.pipelines = crm.pipelines.pipelines_api
        self.associations = crm.associations.v4.basic_api
        self.association_batch = crm.associations.v4.batch_api
        self.owners = Owners(crm.owners.owners_api)
        self.missing_scopes = MissingScopes()
        self.ticket_stages = PipelineStages(self.pipelines, "tickets")
        self.deal_stages = PipelineStages(self.pipelines, "deals")
        self.lists = Lists(self.call_api)
        self.call_outcomes = CallOutcomes(self.call_api)
        self.has_phone_property = True
        self._time_zone: str | None = ""
        """Empty: not read yet."""
        self._boolean_properties: dict[str, float] = {}
        self._definitions: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self.close = pool.clear

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
        unique_ids = list(dict.fromkeys(ids))
        body = {
            "properties": [*fields, *([id_property] if id_property else [])],
            "propertiesWithHistory": [],
        } | ({"idProperty": id_property} if id_property else {})
        items: list[Any] = []
        for start in range(0, len(unique_ids), BATCH_SIZE):
            inputs = [{"id": value} for value in unique_ids[start : start + BATCH_SIZE]]
            items += self.batch.read(kind, body | {"inputs": inputs}).results or ()
        return items

    def associated(self, from_type: str, ids: Sequence[str], to_type: str) -> dict[str, list[str]]:
        """Return the IDs of the records of another type that each of up to 1,000 records is associated with."""
        inputs = {"inputs": [{"id": value} for value in ids]}
        response = self.association_batch.get_page(from_type, to_type, inputs)
        return {
            str(item._from.id): [str(link.to_object_id) for link in item.to or ()]
            for item in response.results or ()
        }

    def associate(self, from_type: str, from_id: str, to_type: str, to_id: str) -> None:
        """Associate two records with HubSpot's default label, which may be repeated."""
        pair = {"from": {"id": from_id}, "to": {"id": to_id}}
        self.association_batch.create_default(from_type, to_type, {"inputs": [pair]})

    def property_definitions(
        self, kind: str, max_age: timedelta = _PROPERTY_CACHE_LIFETIME
    ) -> Mapping[str, Any]:
        """Return the definitions of all properties of an object type by name, read once in ten minutes."""
        read_at, definitions = self._definitions.get(kind, (float("-inf"), {}))
        if time.monotonic() - read_at >= max_age.total_seconds():
            definitions = {item.name: item for item in self._properties.get_all(kind).results}
            self._definitions[kind] = (time.monotonic(), definitions)
        return definitions

    def time_zone(self) -> str | None:
        """Return the account's IANA time zone, read once. None: HubSpot does not tell it to this key."""
        if self._time_zone == "":
            try:
                details = self.call_api("/account-info/v3/details", "GET")
                self._time_zone = ZoneInfo(str(details.get("timeZone"))).key
            except (KeyError, ValueError, OSError):
                self._time_zone = None
            except Exception as error:
                if status_of(error) not in (403, 404):
                    raise
                self._time_zone = None
        return self._time_zone

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
        self._boolean_properties[name] = time.monotonic() + _PROPERTY_CACHE_LIFETIME.total_seconds()

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

    def missing(self, kind: str, ids: Collection[str]) -> set[str]:
        """Return the records among `ids` that were deleted or merged."""
        return set(ids) - {str(item.id) for item in self.read(kind, ids)} if ids else set()

    def may_read(self, kind: str, record_id: str) -> bool:
        """Return whether the key has the scope for an object type. The record need not exist."""
        try:
            self.read(kind, [record_id])
        except Exception as error:
            if status_of(error) != 403:
                raise
            return False
        return True


def require_response(call: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an SDK call to raise OutcomeUnknown for an unexpected success status, and for a list without `results`.

    Without results, a page of a proxy would read as "HubSpot has none".
    """

    def wrapper(*args: Any, **options: Any) -> Any:
        response = call(*args, **options)
        if response is None or getattr(response, "results", ()) is None:
            raise not_from_hubspot()
        return response

    return wrapper


@connector.client
def client(settings: Settings) -> Account:
    """Return the account's client, whose requests end within the attempt's deadline."""
    return Account(settings)

"""HubSpot's HTTP API: properties, pipelines, owners, email subscriptions, and the account itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.hubspot import properties, subscriptions
from bridge.sandbox.hubspot.crm import Crm
from bridge.sandbox.hubspot.errors import invalid, not_found
from bridge.sandbox.hubspot.owners import find_owner, list_owners
from bridge.sandbox.hubspot.pipelines import Pipeline
from bridge.sandbox.hubspot.schema import ObjectType, format_timestamp
from bridge.sandbox.hubspot.scopes import ALL_SCOPES
from bridge.sandbox.provider import Handler, MockProvider, ProviderRequest

PORTAL_ID = 24_601
DAILY_LIMIT = 250_000
API_VERSION = "2026-03"
_UNSUBSCRIBE_ALL = "/communication-preferences/2026-03/statuses/{subscriber}/unsubscribe-all"


class SettingsApi(MockProvider):
    """The endpoints of what an administrator sets up."""

    crm: Crm
    token: str
    missing_scopes: set[str]
    is_private_app: bool
    requests_today: int

    def settings_routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the routes of properties, pipelines, owners, subscriptions and the account."""
        properties_path = f"/crm/properties/{API_VERSION}/{{type}}"
        pipelines = f"/crm/pipelines/{API_VERSION}/{{type}}"
        return [
            ("GET", properties_path, self._properties),
            ("POST", properties_path, self._create_property),
            ("GET", properties_path + "/groups", self._groups),
            ("GET", properties_path + "/{name}", self._property),
            ("DELETE", properties_path + "/{name}", self._delete_property),
            ("GET", pipelines, self._pipelines),
            ("GET", pipelines + "/{pipeline}", self._pipeline),
            ("GET", pipelines + "/{pipeline}/stages", self._stages),
            ("GET", f"/crm/owners/{API_VERSION}", self._owners),
            ("GET", f"/crm/owners/{API_VERSION}/{{id}}", self._owner),
            ("GET", "/calling/v1/dispositions", self._dispositions),
            ("POST", _UNSUBSCRIBE_ALL, self._unsubscribe_all),
            ("GET", _UNSUBSCRIBE_ALL, self._unsubscribed_status),
            ("GET", "/account-info/v3/details", self._details),
            ("GET", "/account-info/v3/api-usage/daily/private-apps", self._usage),
            ("POST", "/oauth/v2/private-apps/get/access-token-info", self._token_info),
        ]

    def _type(self, request: ProviderRequest, name: str = "type") -> ObjectType:
        return self.crm.type(request.path_params[name])

    def _properties(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        return JSONResponse({"results": [definition.as_json() for definition in kind.properties.values()]})

    def _create_property(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        definition = properties.parse_property(kind, parse_object(request, None))
        kind.properties[definition.name] = definition
        return JSONResponse(definition.as_json(), 201)

    def _property(self, request: ProviderRequest) -> Response:
        definition = self._type(request).properties.get(request.path_params["name"])
        if definition is None:
            raise not_found(request.path_params["name"])
        return JSONResponse(definition.as_json())

    def _delete_property(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        definition = kind.properties.get(request.path_params["name"])
        if definition is None or not definition.custom:
            raise not_found(request.path_params["name"])
        del kind.properties[definition.name]
        return Response(status_code=204)

    def _groups(self, request: ProviderRequest) -> Response:
        group = self._type(request).group
        return JSONResponse(
            {"results": [{"name": group, "label": group, "displayOrder": 0, "archived": False}]}
        )

    def _pipelines(self, request: ProviderRequest) -> Response:
        pipelines = self.crm.pipelines.get(self._type(request).name, {})
        return JSONResponse({"results": [pipeline.as_json() for pipeline in pipelines.values()]})

    def _pipeline(self, request: ProviderRequest) -> Response:
        return JSONResponse(self._require_pipeline(request).as_json())

    def _stages(self, request: ProviderRequest) -> Response:
        return JSONResponse({"results": self._require_pipeline(request).as_json()["stages"]})

    def _require_pipeline(self, request: ProviderRequest) -> Pipeline:
        pipelines = self.crm.pipelines.get(self._type(request).name, {})
        pipeline = pipelines.get(request.path_params["pipeline"])
        if pipeline is None:
            raise not_found(request.path_params["pipeline"])
        return pipeline

    def _owners(self, request: ProviderRequest) -> Response:
        return JSONResponse({"results": list_owners(self.crm.owners.values(), request.query)})

    def _owner(self, request: ProviderRequest) -> Response:
        owner = find_owner(self.crm.owners.values(), request.path_params["id"], request.query)
        if owner is None:
            raise not_found(request.path_params["id"])
        return JSONResponse(owner)

    def _dispositions(self, _request: ProviderRequest) -> Response:
        return JSONResponse(
            [{"id": key, "label": label, "deleted": False} for key, label in self.crm.dispositions.items()]
        )

    def _unsubscribe_all(self, request: ProviderRequest) -> Response:
        return JSONResponse(subscriptions.unsubscribe_all(self.crm, request, self.now()))

    def _unsubscribed_status(self, request: ProviderRequest) -> Response:
        return JSONResponse(subscriptions.unsubscribed_status(self.crm, request, self.now()))

    def _details(self, _request: ProviderRequest) -> Response:
        return JSONResponse(
            {
                "portalId": PORTAL_ID,
                "accountType": "STANDARD",
                "timeZone": "US/Eastern",
                "companyCurrency": "USD",
                "additionalCurrencies": [],
                "utcOffset": "-05:00",
                "utcOffsetMilliseconds": -18_000_000,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "na1",
            }
        )

    def _usage(self, _request: ProviderRequest) -> Response:
        return JSONResponse(
            {
                "results": [
                    {
                        "name": "private-apps-api-calls-daily",
                        "usageLimit": DAILY_LIMIT,
                        "currentUsage": self.requests_today,
                        "collectedAt": format_timestamp(self.now()),
                        "fetchStatus": "SUCCESS",
                        "resetsAt": format_timestamp(self.now()),
                    }
                ]
            }
        )

    def _token_info(self, request: ProviderRequest) -> Response:
        if parse_object(request, {"tokenKey"}).get("tokenKey") != self.token or not self.is_private_app:
            raise not_found("tokenKey")
        scopes = [scope for scope in ALL_SCOPES if scope not in self.missing_scopes]
        return JSONResponse({"userId": 1, "hubId": PORTAL_ID, "appId": 1, "scopes": scopes})


def parse_object(request: ProviderRequest, fields: set[str] | None) -> dict[str, Any]:
    """Return the body as a JSON object. Raise ProviderError for any field not in `fields`."""
    try:
        body = request.json()
    except ValueError:
        raise invalid("Invalid input JSON on line 1, column 1") from None
    if not isinstance(body, dict):
        raise invalid("Invalid input JSON: an object is needed")
    for name in body:
        if fields is not None and name not in fields:
            raise invalid(f'Invalid input JSON: Unrecognized field "{name}"')
    return body

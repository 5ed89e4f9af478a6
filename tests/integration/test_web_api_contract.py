"""JSON API: every endpoint responds as its declaration says, and the declarations make a valid OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from jsonschema_rs import Draft202012Validator, meta
from starlette.routing import Route

from bridge.clock import Clock
from bridge.web.access import Access
from bridge.web.api import all_endpoints
from bridge.web.api.endpoint import Endpoint, NoParameters
from bridge.web.api.openapi import openapi_document
from bridge.web.dashboard import dashboard_routes
from tests.integration.api_examples import EXAMPLES, Stored, TrialOfTests
from tests.integration.dashboard_site import READ_TOKEN, Site, running_site
from tests.integration.populated_site import fill

NOTHING: Any = MagicMock(spec=Stored)
ENDPOINTS = {f"{endpoint.method} {endpoint.full_path}": endpoint for endpoint in all_endpoints()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), Clock(), trial=TrialOfTests()) as site:
        fill(site)
        yield site


@pytest.fixture(scope="module")
def api(site: Site) -> Iterator[httpx.Client]:
    with site.client() as client:
        yield client


def path_of(endpoint: Endpoint, variables: Any) -> str:
    path = endpoint.full_path
    for name, value in variables.items():
        path = path.replace(f"{{{name}}}", value)
    return path


def test_every_endpoint_has_an_example() -> None:
    assert set(EXAMPLES) == set(ENDPOINTS)


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) & set(ENDPOINTS)))
def test_example_succeeds_and_the_response_is_as_declared(api: httpx.Client, name: str) -> None:
    endpoint, example = ENDPOINTS[name], EXAMPLES[name](Stored(api))
    path = path_of(endpoint, example.variables)
    json = example.body if endpoint.method != "GET" else None
    response = api.request(endpoint.method, path, params=example.query, json=json)
    assert response.status_code == example.status, response.text
    # The client of the site has compared the response with the document: see `api_contract`.


@pytest.mark.parametrize("name", sorted(name for name in ENDPOINTS if "{" in name))
def test_unknown_id_is_404(api: httpx.Client, name: str) -> None:
    endpoint = ENDPOINTS[name]
    path = path_of(endpoint, dict.fromkeys(("id", "name", "hash"), "unknown"))
    json = EXAMPLES[name](NOTHING).body if endpoint.method != "GET" else None
    response = api.request(endpoint.method, path, json=json)
    assert response.status_code == 404
    assert "error" in response.json()


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_token_that_reads_opens_what_changes_nothing(site: Site, name: str) -> None:
    endpoint = ENDPOINTS[name]
    path = path_of(endpoint, dict.fromkeys(("id", "name", "hash"), "unknown"))
    with site.client(READ_TOKEN) as reader, site.client(None) as nobody:
        status = reader.request(endpoint.method, path).status_code
        assert (status == 403) == (endpoint.access is Access.ADMIN)
        assert nobody.request(endpoint.method, path).status_code == 401


def test_document_is_valid_and_describes_every_value() -> None:
    document = openapi_document()
    assert document["openapi"].startswith("3.1.")
    for name, schema in document["components"]["schemas"].items():
        assert meta.is_valid(schema), name
        Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]})
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for operation in operations:
        for parameter in operation["parameters"]:
            assert parameter["in"] == "path" or parameter["description"], parameter


@pytest.mark.parametrize("key", sorted(ENDPOINTS))
def test_parameters_are_described(key: str) -> None:
    endpoint = ENDPOINTS[key]
    for field, info in endpoint.parameters.model_fields.items():
        assert info.description, (key, field)
        schema = str(endpoint.parameters.model_json_schema()["properties"][field])
        for constraint in info.metadata:  # one that is outside of `... | None` does not reach the document
            for name in ("pattern", "ge", "le", "min_length", "max_length"):
                assert str(getattr(constraint, name, None) or "") in schema, (field, name)
    assert endpoint.summary.endswith(".")
    assert endpoint.method == "GET" or endpoint.parameters is NoParameters or endpoint.parameters.__doc__


FORMS = {
    "/review/resolve": "POST /api/deliveries/resolve",
    "/deliveries/{id}/resolve": "POST /api/deliveries/{id}/resolve",
    "/deliveries/confirm": "POST /api/deliveries/retry",  # also cancel and dismiss; the preview is `dry_run`
    "/deliveries/{id}/retry": "POST /api/deliveries/{id}/retry",
    "/deliveries/{id}/cancel": "POST /api/deliveries/{id}/cancel",
    "/deliveries/{id}/dismiss": "POST /api/deliveries/{id}/dismiss",
    "/deliveries/{id}/undismiss": "POST /api/deliveries/{id}/dismiss",
    "/events/{id}/replay": "POST /api/events/{id}/replay",
    "/events/replay": "POST /api/events/replay",
    "/contacts": "POST /api/contacts",
    "/contacts/import": "POST /api/opt-outs/import",
    "/contacts/import/confirm": "POST /api/opt-outs/import",
    "/contacts/duplicates/{id}/dismiss": "POST /api/contacts/duplicates/{id}/dismiss",
    "/contacts/opt-out": "POST /api/opt-outs",
    "/contacts/opt-in": "DELETE /api/opt-outs",
    "/contacts/{id}/erase": "POST /api/contacts/erase",
    "/search": "POST /api/search",
    "/rules/try": "POST /api/rules/plan",
    "/rules/{name:path}/cancel": "POST /api/rules/{name}/cancel",
    "/connections/{name}/pause": "POST /api/connections/{name}/pause",
    "/connections/{name}/resume": "POST /api/connections/{name}/resume",
    "/connections/{name}/probe": "POST /api/connections/{name}/probe",
    "/connections/{name}/check": "POST /api/connections/{name}/check",
    "/rejected/{id}/accept": "POST /api/rejected-requests/{id}/accept",
    "/stop": "POST /api/pause",
    "/start": "POST /api/resume",
    "/settings": "",  # how this browser shows the pages
}
"""Path of each form of the dashboard -> the endpoint that does the same."""


def test_everything_that_the_dashboard_does_is_in_the_api() -> None:
    routes = dashboard_routes(MagicMock())
    forms = {route.path for route in routes if isinstance(route, Route) and "POST" in (route.methods or ())}
    assert forms == set(FORMS)
    assert set(filter(None, FORMS.values())) <= set(ENDPOINTS)

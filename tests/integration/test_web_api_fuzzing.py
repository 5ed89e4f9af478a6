"""JSON API: requests that schemathesis derives from the OpenAPI document, valid and invalid, all as documented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st

from bridge.clock import Clock
from bridge.web.api import all_endpoints
from bridge.web.api.openapi import openapi_document
from tests.integration.api_examples import TrialOfTests
from tests.integration.dashboard_site import TOKEN, Site, running_site
from tests.integration.populated_site import fill

REJECTED = ["400", "401", "403", "404", "405", "409", "413", "415"]
ACCEPTED = ["2xx", "401", "403", "404", "409"]
SETTINGS: dict[str, Any] = {
    "seed": 17,
    "continue-on-failure": True,
    "headers": {"Authorization": f"Bearer {TOKEN}"},
    "generation": {"max-examples": 4, "deterministic": True, "database": "none", "no-shrink": True},
    "phases": {
        # One method besides those of the path: the same code rejects all others.
        "coverage": {"unexpected-methods": ["PATCH"], "generate-duplicate-query-parameters": True},
        "stateful": {"enabled": False},
    },
    "checks": {"negative_data_rejection": {"expected-statuses": REJECTED}},
    "operations": [
        {  # the same fields as in `retry`, with which every boundary is tried
            "include-path-regex": "/api/deliveries/(cancel|dismiss|counts)$",
            "phases": {"coverage": {"enabled": False}},
            "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, "400"]}},
        },
        {  # valid items are stored although others are invalid
            "include-path": "/api/opt-outs",
            "checks": {
                "negative_data_rejection": {"expected-statuses": [*REJECTED, "200"]},
                # A channel must fit the kind of address.
                "positive_data_acceptance": {"expected-statuses": [*ACCEPTED, "400"]},
            },
        },
        {  # names of rules and files, and combinations of criteria, are beyond a schema
            "include-path-regex": "/api/(rules/(check|plan|explain)|deliveries/(retry|resolve)|events/(.*/)?replay)$",
            "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, "400"]}},
        },
    ],
}


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("bridge.web.wrong_tokens.FAILURE_SECONDS", 0)
    with running_site(tmp_path_factory.mktemp("site"), Clock(), trial=TrialOfTests()) as site:
        fill(site)
        yield site


def test_generated_requests_find_no_gap_in_the_document(site: Site) -> None:
    few = {"generation": SETTINGS["generation"] | {"max-examples": 1}}
    find_gaps(
        site, SETTINGS | few | {"phases": {"coverage": {"enabled": False}, "stateful": {"enabled": False}}}
    )


@pytest.mark.faults
def test_requests_at_every_boundary_find_no_gap_in_the_document(site: Site) -> None:
    find_gaps(site, SETTINGS)


def find_gaps(site: Site, settings: dict[str, Any]) -> None:
    import schemathesis.openapi  # takes a third of a second
    from schemathesis.engine import from_schema
    from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

    schemathesis.openapi.format("address", st.sampled_from(["+12125550167", "ada@engine.example"]))
    config = schemathesis.Config.from_dict(settings | {"base-url": site.url})
    schema = schemathesis.openapi.from_dict(dict(openapi_document()), config=config)
    failures: dict[tuple[str, str], str] = {}
    tested: set[str] = set()
    for event in from_schema(schema).execute():
        if isinstance(event, ScenarioFinished):
            tested.add(event.recorder.label)
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.failure_info is not None:
                        failure = check.failure_info
                        text = f"{failure.failure.message[:300]}\n{failure.code_sample[:300]}"
                        failures.setdefault((event.recorder.label, check.name), text)
        assert not isinstance(event, FatalError | NonFatalError), event
    assert not failures, "\n\n".join(f"{label}: {name}\n{text}" for (label, name), text in failures.items())
    assert tested >= {f"{item.method} {item.full_path}" for item in all_endpoints()}

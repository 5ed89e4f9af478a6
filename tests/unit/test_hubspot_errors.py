"""What HubSpot's exceptions mean, whichever of the SDK's packages they come from."""

from __future__ import annotations

import importlib
import json
from datetime import timedelta
from typing import Any

import pytest
import urllib3

from bridge.errors import (
    AuthenticationError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.testing import load_connector

PACKAGES = [
    "crm.objects",
    "crm.contacts",
    "crm.objects.calls",
    "crm.properties",
    "crm.pipelines",
    "crm.associations.v4",
]
hubspot = load_connector("hubspot")


def classify_error(error: Exception) -> Any:
    assert hubspot.classify is not None
    return hubspot.classify(error)


def api_error(
    package: str, status: int, body: Any = None, headers: dict[str, str] | None = None
) -> Exception:
    error = importlib.import_module(f"hubspot.{package}.exceptions").ApiException(status=status, reason="x")
    error.body = json.dumps(body) if isinstance(body, dict) else body
    error.headers = headers
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_has_its_own_exceptions_and_all_are_known(package: str) -> None:
    assert isinstance(classify_error(api_error(package, 400)), PermanentError)
    assert isinstance(classify_error(api_error(package, 401)), AuthenticationError)
    assert isinstance(classify_error(api_error(package, 503)), OutcomeUnknown)


@pytest.mark.parametrize(
    ("policy", "kind", "wait"),
    [
        ("DAILY", QuotaExhausted, None),
        ("SECONDLY", RateLimited, timedelta(seconds=1)),
        ("TEN_SECONDLY_ROLLING", RateLimited, timedelta(seconds=10)),
    ],
)
def test_an_empty_day_is_no_short_pause(policy: str, kind: type, wait: timedelta | None) -> None:
    found = classify_error(api_error("crm.objects", 429, {"policyName": policy}))
    assert (type(found), found.retry_after) == (kind, wait)


def test_the_sdk_says_status_0_when_tls_fails_and_nothing_was_sent() -> None:
    def request() -> None:
        try:
            raise urllib3.exceptions.SSLError("CERTIFICATE_VERIFY_FAILED")
        except urllib3.exceptions.SSLError:
            raise api_error("crm.objects", 0)  # noqa: B904 - as the SDK does

    with pytest.raises(Exception, match="x") as caught:
        request()
    assert classify_error(caught.value).reason == "network"


@pytest.mark.parametrize("body", [None, "", "<html>", "[]", '{"errors": 5}', "\ud800"])
def test_a_body_that_is_none_of_hubspots_breaks_nothing(body: Any) -> None:
    assert isinstance(classify_error(api_error("crm.objects", 400, body)), PermanentError)
    assert isinstance(classify_error(api_error("crm.objects", 429, body)), RateLimited)


def test_what_is_no_error_of_the_partner_or_the_network_is_a_bug() -> None:
    assert classify_error(KeyError("x")) is None
    assert isinstance(classify_error(urllib3.exceptions.NewConnectionError(None, "refused")), TransientError)  # type: ignore[arg-type]

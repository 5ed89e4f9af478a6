"""Mapping of HubSpot's exceptions, from each package of the SDK."""

from __future__ import annotations

import importlib
import json
from datetime import timedelta
from typing import Any

import pytest
import urllib3

from bridge.errors import (
    AccountError,
    AuthenticationError,
    OutcomeUnknown,
    PermanentError,
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
    return hubspot.classify(error)


def api_error(
    package: str, status: int, body: Any = None, headers: dict[str, str] | None = None
) -> Exception:
    error = importlib.import_module(f"hubspot.{package}.exceptions").ApiException(status=status, reason="x")
    error.body = json.dumps(body) if isinstance(body, dict) else body
    error.headers = headers
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize("package", PACKAGES)
def test_exception_of_every_sdk_package_is_mapped(package: str) -> None:
    assert isinstance(classify_error(api_error(package, 400)), PermanentError)
    assert isinstance(classify_error(api_error(package, 401)), AuthenticationError)
    assert isinstance(classify_error(api_error(package, 503)), OutcomeUnknown)


@pytest.mark.parametrize(
    ("policy", "retry_after"),
    [("SECONDLY", timedelta(seconds=1)), ("TEN_SECONDLY_ROLLING", timedelta(seconds=10))],
)
def test_429_is_mapped_by_policy_name(policy: str, retry_after: timedelta) -> None:
    failure = classify_error(api_error("crm.objects", 429, {"policyName": policy}))
    assert (type(failure), failure.retry_after) == (RateLimited, retry_after)


@pytest.mark.parametrize(
    ("status", "category", "error_type", "fix"),
    [
        (401, "EXPIRED_AUTHENTICATION", AuthenticationError, "the key has expired or was deleted"),
        (401, "INVALID_AUTHENTICATION", AuthenticationError, "or the account is not active"),
        (402, "PAYMENT_REQUIRED", AccountError, "look at its subscription"),
        (403, "BANNED", AccountError, "sign in to HubSpot"),
    ],
)
def test_refusal_of_the_whole_account_pauses_it(
    status: int, category: str, error_type: type, fix: str
) -> None:
    failure = classify_error(api_error("crm.objects", status, {"category": category}))
    assert type(failure) is error_type
    assert category in failure.detail
    assert fix in failure.fix


@pytest.mark.parametrize("key", ["requiredGranularScopes", "requiredScopes", "missingScopes"])
def test_missing_scope_is_named_with_the_page_where_it_is_granted(key: str) -> None:
    body = {
        "category": "MISSING_SCOPES",
        "errors": [{"message": "...", "context": {key: ["crm.objects.deals.read"]}}],
    }
    failure = classify_error(api_error("crm.objects", 403, body))
    assert type(failure) is AccountError
    assert failure.pause_reason == (
        "the HubSpot key lacks the scope crm.objects.deals.read; add it in HubSpot under Development > Keys > Service "
        "keys"
    )


def test_status_0_is_mapped_to_network_error() -> None:
    """The SDK raises status 0 for a TLS failure, before anything was sent."""

    def request() -> None:
        try:
            raise urllib3.exceptions.SSLError("CERTIFICATE_VERIFY_FAILED")
        except urllib3.exceptions.SSLError:
            raise api_error("crm.objects", 0)  # noqa: B904 - as the SDK does

    with pytest.raises(Exception, match="x") as caught:
        request()
    assert classify_error(caught.value).reason == "network"


@pytest.mark.parametrize("body", [None, "", "<html>", "[]", '{"errors": 5}', "\ud800"])
def test_error_with_unreadable_body_is_mapped_by_status(body: Any) -> None:
    assert isinstance(classify_error(api_error("crm.objects", 400, body)), PermanentError)
    assert isinstance(classify_error(api_error("crm.objects", 429, body)), RateLimited)


def test_unrelated_exception_is_not_mapped() -> None:
    assert classify_error(KeyError("x")) is None
    assert isinstance(classify_error(urllib3.exceptions.NewConnectionError(None, "refused")), TransientError)  # type: ignore[arg-type]

"""Webhook signatures: a verified event or one kind of error."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import Refused
from bridge.events import Event
from bridge.signing import SignedRequestRejected, read_event, read_headers, sign, verify

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
BODY = json.dumps({"event": "call.busy", "webhookId": "whd_1"}).encode()


def headers(body: bytes = BODY, secret: bytes = b"one", at: datetime = NOW) -> dict[str, str]:
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    return {"x-webhook-signature-256": f"sha256={digest}", "x-webhook-timestamp": str(int(at.timestamp()))}


def received(body: bytes, request_headers: dict[str, str], *secrets: bytes) -> Event:
    verify(body, read_headers(request_headers, NOW, 300), secrets or (b"one",))
    return read_event(body, NOW)


def rejected(body: bytes, request_headers: dict[str, str], *secrets: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        received(body, request_headers, *secrets)
    return caught.value


def test_verify_returns_signed_event() -> None:
    event = received(BODY, headers(), b"one")
    assert (event.type, event.dedupe_key) == ("call.busy", "whd_1")


def test_verify_accepts_any_configured_secret() -> None:
    assert received(BODY, headers(secret=b"new"), b"old", b"new")


def test_sign_returns_the_signature_that_verify_accepts() -> None:
    assert sign(BODY, b"one") == headers()["x-webhook-signature-256"]


def test_verify_accepts_uppercase_signature() -> None:
    request_headers = headers()
    request_headers["x-webhook-signature-256"] = (
        "sha256=" + request_headers["x-webhook-signature-256"][7:].upper()
    )
    assert received(BODY, request_headers, b"one")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"x-webhook-signature-256": ""}, "signature_malformed"),
        ({"x-webhook-signature-256": "sha256=" + "0" * 64}, "signature_wrong"),
        ({"x-webhook-signature-256": "sha1=" + "0" * 40}, "signature_malformed"),
        ({"x-webhook-signature-256": "sha256=" + "0" * 63}, "signature_malformed"),
        ({"x-webhook-signature-256": "sha256=" + "٣" * 64}, "signature_malformed"),
        ({"x-webhook-timestamp": ""}, "timestamp_missing"),
        ({"x-webhook-timestamp": "yesterday"}, "timestamp_missing"),
        ({"x-webhook-timestamp": "NaN"}, "timestamp_missing"),
        ({"x-webhook-timestamp": "-1"}, "timestamp_missing"),
        ({"x-webhook-timestamp": "٣" * 10}, "timestamp_missing"),
        ({"x-webhook-timestamp": "1" * 400}, "timestamp_missing"),
    ],
)
def test_invalid_header_is_401(change: dict[str, str], kind: str) -> None:
    error = rejected(BODY, headers() | change)
    assert (error.status, error.kind) == (401, kind)


@pytest.mark.parametrize("missing", ["x-webhook-signature-256", "x-webhook-timestamp"])
def test_missing_header_is_401(missing: str) -> None:
    request_headers = headers()
    del request_headers[missing]
    assert rejected(BODY, request_headers).status == 401


@pytest.mark.parametrize(("offset", "accepted"), [(-300, True), (300, True), (-301, False), (301, False)])
def test_timestamp_tolerance_applies_in_both_directions(offset: int, accepted: bool) -> None:
    request_headers = headers(at=NOW + timedelta(seconds=offset))
    if accepted:
        assert received(BODY, request_headers, b"one")
    else:
        assert rejected(BODY, request_headers).kind == "timestamp_off"


def test_changed_body_is_rejected_before_parsing() -> None:
    assert rejected(BODY + b" ", headers()).kind == "signature_wrong"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'"x"',
        b"null",
        b'{"event": NaN}',
        b'{"event": "a", "x": 1e999}',
        b"\xff\xfe",
        b"[" * 90_000,
    ],
)
def test_signed_body_that_is_not_an_object_is_400_and_stored(body: bytes) -> None:
    error = rejected(body, headers(body))
    assert (error.status, error.kind) == (400, "not_json")
    assert isinstance(error, SignedRequestRejected)


@pytest.mark.parametrize("name", ["", "  ", None, 7, ["call.busy"], "x" * 101, "a\nb"])
def test_body_without_valid_event_type_is_400(name: object) -> None:
    body = json.dumps({"event": name}).encode()
    assert rejected(body, headers(body)).status == 400


def test_unknown_event_type_is_accepted() -> None:
    body = json.dumps({"event": "call.transferred"}).encode()
    assert received(body, headers(body), b"one").type == "call.transferred"


def test_rejection_detail_never_quotes_the_body() -> None:
    body = b'{"event": "call.busy", "metadata": {"contactPhone": "+12125550123"'
    assert "+1212" not in rejected(body, headers(body)).detail


_TEXT = st.text(max_size=80)


@given(st.binary(max_size=200), st.dictionaries(_TEXT, _TEXT, max_size=4), _TEXT, _TEXT)
def test_arbitrary_unsigned_request_is_401(
    body: bytes, others: dict[str, str], signature: str, stamp: str
) -> None:
    request_headers = others | {"x-webhook-signature-256": signature, "x-webhook-timestamp": stamp}
    assert rejected(body, request_headers).status == 401


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | _TEXT,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
        max_leaves=12,
    ),
    st.sampled_from(["event", "webhookId", "timestamp", "conversationId", "metadata", "callMetadata"]),
)
def test_arbitrary_signed_body_is_event_or_rejected(value: object, field: str) -> None:
    body = json.dumps({"event": "call.busy", "metadata": {}} | {field: value}).encode()
    try:
        event = received(body, headers(body), b"one")
    except SignedRequestRejected:
        return
    assert event.occurred_at <= NOW
    assert event.conversation.id
    assert event.contact.phone is None or event.contact.phone.startswith("+")

"""Heppu's own API, as the command line uses it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.heppu_api import HeppuApi, HeppuError, new_secret
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.testing import Reply, StubServer


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox() as running:
        yield running


@pytest.fixture
def api(sandbox: RunningSandbox) -> Iterator[HeppuApi]:
    found = HeppuApi(sandbox.environment["HEPPU_API_KEY"], sandbox.environment["HEPPU_API_URL"])
    yield found
    found.close()


def test_a_webhook_is_created_listed_changed_and_deleted(api: HeppuApi, sandbox: RunningSandbox) -> None:
    secret = new_secret()
    made = api.create_webhook(
        "https://bridge.example.com/webhooks/heppu", ["call.busy"], secret, "the bridge"
    )
    assert sandbox.heppu.webhooks[0]["secret"] == secret
    assert "secret" not in made

    assert [webhook["id"] for webhook in api.list_webhooks()] == [made["id"]]
    api.update_webhook(made["id"], events=["call.busy", "call.failed"])
    assert api.list_webhooks()[0]["events"] == ["call.busy", "call.failed"]
    api.delete_webhook(made["id"])
    assert api.list_webhooks() == []


@pytest.mark.parametrize("data", [[{"id": "webhook_1"}], {"webhooks": [{"id": "webhook_1"}], "total": 1}])
def test_both_shapes_of_the_list_are_read(data: object) -> None:
    """Which one Heppu answers with is not documented."""
    with StubServer() as heppu:
        heppu.answer("GET", "/webhooks", Reply(200, {"data": data, "meta": {}}))
        api = HeppuApi("k", heppu.url)
        assert api.list_webhooks() == [{"id": "webhook_1"}]
        api.close()


def test_an_error_keeps_heppus_words_apart_from_ours(api: HeppuApi) -> None:
    with pytest.raises(HeppuError) as refused:
        api.create_webhook("http://bridge.example.com", ["call.busy"], new_secret())
    assert refused.value.status == 422
    assert "HTTPS" in refused.value.message
    assert "HTTPS" not in str(refused.value)


def test_an_id_cannot_lead_to_another_path(api: HeppuApi, sandbox: RunningSandbox) -> None:
    with pytest.raises(HeppuError):
        api.delete_webhook("webhook_1/../../calls?x=#y")
    assert sandbox.requests[-1].path == "/api/v1/webhooks/webhook_1%2F..%2F..%2Fcalls%3Fx%3D%23y"


def test_a_secret_is_new_each_time_and_hard_to_guess() -> None:
    assert len({new_secret() for _ in range(50)}) == 50
    assert all(len(new_secret()) >= 40 for _ in range(5))


def test_the_key_goes_in_the_header_that_heppu_prefers() -> None:
    with StubServer() as heppu:
        heppu.answer("GET", "/webhooks", Reply(200, {"data": []}))
        api = HeppuApi("the-key", heppu.url + "/")
        api.list_webhooks()
        api.close()
    assert heppu.requests[0].headers["x-api-key"] == "the-key"
    assert "authorization" not in heppu.requests[0].headers

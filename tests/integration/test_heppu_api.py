"""Client of Heppu's API, as the command line uses it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.heppu_api import HeppuApi, HeppuError, new_secret
from bridge.sandbox import RunningSandbox
from bridge.testing import Reply, StubServer


@pytest.fixture
def api(sandbox: RunningSandbox) -> Iterator[HeppuApi]:
    client = HeppuApi(sandbox.environment["HEPPU_API_KEY"], sandbox.environment["HEPPU_API_URL"])
    yield client
    client.close()


def test_webhook_is_created_listed_updated_and_deleted(api: HeppuApi, sandbox: RunningSandbox) -> None:
    secret = new_secret()
    created = api.create_webhook(
        "https://bridge.example.com/webhooks/heppu", ["call.busy"], secret, "the bridge"
    )
    assert sandbox.heppu.webhooks[0]["secret"] == secret
    assert "secret" not in created

    assert [webhook["id"] for webhook in api.list_webhooks()] == [created["id"]]
    api.update_webhook(created["id"], events=["call.busy", "call.failed"])
    assert api.list_webhooks()[0]["events"] == ["call.busy", "call.failed"]
    api.delete_webhook(created["id"])
    assert api.list_webhooks() == []


@pytest.mark.parametrize("data", [[{"id": "webhook_1"}], {"webhooks": [{"id": "webhook_1"}], "total": 1}])
def test_list_webhooks_reads_both_response_shapes(data: object) -> None:
    """Heppu does not document which of the two it returns."""
    with StubServer() as heppu:
        heppu.answer("GET", "/webhooks", Reply(200, {"data": data, "meta": {}}))
        api = HeppuApi("k", heppu.url)
        assert api.list_webhooks() == [{"id": "webhook_1"}]
        api.close()


def test_error_keeps_heppu_message_out_of_its_text(api: HeppuApi) -> None:
    with pytest.raises(HeppuError) as caught:
        api.create_webhook("http://bridge.example.com", ["call.busy"], new_secret())
    assert caught.value.status == 422
    assert "HTTPS" in caught.value.message
    assert "HTTPS" not in str(caught.value)


def test_delete_webhook_quotes_id_in_path(api: HeppuApi, sandbox: RunningSandbox) -> None:
    with pytest.raises(HeppuError):
        api.delete_webhook("webhook_1/../../calls?x=#y")
    assert sandbox.requests[-1].path == "/api/v1/webhooks/webhook_1%2F..%2F..%2Fcalls%3Fx%3D%23y"


def test_new_secret_is_unique_and_long() -> None:
    assert len({new_secret() for _ in range(50)}) == 50
    assert all(len(new_secret()) >= 40 for _ in range(5))


def test_api_key_is_sent_in_x_api_key_header() -> None:
    with StubServer() as heppu:
        heppu.answer("GET", "/webhooks", Reply(200, {"data": []}))
        api = HeppuApi("the-key", heppu.url + "/")
        api.list_webhooks()
        api.close()
    assert heppu.requests[0].headers["x-api-key"] == "the-key"
    assert "authorization" not in heppu.requests[0].headers

"""A conversation whose ID is once a number and once a string, through store, worker and connector."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.sandbox import RunningSandbox
from bridge.store.database import Database
from bridge.testing import event
from tests.integration.crm import CrmConnection
from tests.integration.engine import Engine


@pytest.fixture
def hubspot(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("hubspot", sandbox)
    assert connection.connector.run_setup is not None
    connection.connector.run_setup(connection.connected.client)
    yield connection
    connection.close()


def test_one_conversation_is_one_record_in_the_store(database: Database) -> None:
    engine = Engine(database)
    for conversation in (7001, "7001", 7001.0):
        engine.deliver("record", engine.event(conversationId=conversation))
        engine.run_due()
        engine.database.clock.advance(minutes=1)
    assert list(engine.provider.records) == ["record 7001"]


def test_one_conversation_is_one_call_in_hubspot(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    for number, conversation in enumerate((7001, "7001")):
        changes = {"conversationId": conversation, "webhookId": f"whd_{number}"}
        hubspot.deliver("log_call", event(changes=changes, clock=hubspot.clock))
        hubspot.clock.advance(minutes=1)
    [call] = sandbox.hubspot.calls
    assert call.properties["heppu_conversation_id"] == "7001"

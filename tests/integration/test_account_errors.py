"""AccountError: anything wrong with the account pauses its connection, as rejected credentials do."""

from __future__ import annotations

import pytest

from bridge.errors import AccountError, AuthenticationError
from bridge.store.connections import all_connections
from bridge.store.database import Database
from tests.integration.engine import Engine


@pytest.mark.parametrize(
    "error", [AccountError("the sender is suspended"), AuthenticationError("the token is not accepted")]
)
def test_account_error_pauses_the_connection_and_consumes_no_attempt(
    database: Database, error: AccountError
) -> None:
    engine = Engine(database)
    delivery_id = engine.deliver("post")

    def fail() -> None:
        raise error

    engine.provider.before = fail
    engine.run_for(minutes=5)

    [connection] = all_connections(database)
    assert (connection["pause_cause"], connection["pause_reason"]) == ("auth", error.detail)
    assert len(engine.provider.calls) == 1  # nothing is sent while the connection is paused
    delivery = engine.show(delivery_id)
    assert (delivery["state"], delivery["attempts"]) == ("retrying", 0)

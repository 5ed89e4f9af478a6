"""The reason of a suppressed delivery says what really happened, and lists can be filtered by it, on both databases."""

from __future__ import annotations

import pytest

from bridge.errors import PermanentError
from bridge.rules.model import MessagingPolicy
from bridge.store.database import Database
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.queries import REASONS
from tests.integration.engine import NO_QUIET, Engine, raising

PHONE = "+12125550167"


def suppressed(engine: Engine) -> tuple[str, str]:
    """Return the reason and the detail of a message that is due now."""
    delivery_id = engine.deliver("send", engine.event(metadata={"contactPhone": PHONE}))
    engine.run_due()
    shown = engine.show(delivery_id)
    assert shown["state"] == "suppressed"
    return shown["reason"], shown["detail"]


@pytest.mark.parametrize("result", ["false", "unknown"])
def test_false_consent_condition_is_no_consent(database: Database, result: str) -> None:
    messaging = MessagingPolicy(quiet_hours=NO_QUIET, consent="event.metadata.consent == 'yes'")
    engine = Engine(database, policy_config=PolicyConfig(messaging, lambda _: result))  # type: ignore[return-value,arg-type]
    reason, detail = suppressed(engine)
    assert reason == "no_consent"
    assert detail == (
        f"messaging.consent: `event.metadata.consent == 'yes'` is {result} for this event: no consent"
    )


def test_opt_out_by_an_operator_says_who_and_why(engine: Engine) -> None:
    change = OptOutChange("sms", PHONE, True, "import", actor="ada", reason="our DNC list 2026-11")
    save_opt_out(engine.database, change)
    reason, detail = suppressed(engine)
    assert reason == "opted_out"
    assert "ada" in detail
    assert "our DNC list 2026-11" in detail
    assert "the recipient opted out" not in detail


def test_opt_out_by_the_recipient_says_so(engine: Engine) -> None:
    save_opt_out(engine.database, OptOutChange("sms", PHONE, True, "STOP to desk"))
    reason, detail = suppressed(engine)
    assert (reason, "the recipient opted out" in detail) == ("opted_out", True)


def test_deliveries_are_listed_by_reason(engine: Engine) -> None:
    shadow = engine.deliver("post", shadow=True)

    engine.run_due()
    engine.provider.before = raising(PermanentError("no such channel"))
    failed = engine.deliver("post")
    engine.run_due()
    engine.provider.before = None
    engine.deliver("post")

    def ids(**filters: object) -> list[str]:
        return [item["id"] for item in list_deliveries(engine.database, DeliveryFilter(**filters)).items]  # type: ignore[arg-type]

    assert ids(reason="shadow") == ids(states=["suppressed"], reason="shadow") == [shadow]
    assert ids(reason="rejected") == [failed]
    assert ids(states=["failed"], reason="shadow") == []
    assert len(REASONS) == len(set(REASONS))

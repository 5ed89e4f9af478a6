"""`messaging.crm_opt_outs`: no message leaves before each CRM has said that the contact has no opt-out flag."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from bridge.connector import Connector, ConnectorSettings, Limits, OptOutFlag
from bridge.connector.discovery import read_settings
from bridge.connector.opt_outs import PHONE_CHANNELS
from bridge.errors import AuthenticationError, OutcomeUnknown, PermanentError, RateLimited
from bridge.events import Event
from bridge.ids import new_id
from bridge.rules.model import Cap, MessagingPolicy, Rules
from bridge.sandbox import RunningSandbox
from bridge.store import schema
from bridge.store.connection_status import all_connections
from bridge.store.connections import pause, resume
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.opt_out_queries import QUERY_LEASE, claim_query
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.retention import prune_batch
from bridge.testing import event, load_connector
from bridge.worker.account import Account, Accounts
from bridge.worker.opt_out_reader import OptOutReader
from tests.acceptance.service_process import eventually
from tests.integration.crm import email_address, phone_number
from tests.integration.engine import NO_QUIET, Engine, worker_on
from tests.integration.test_opt_out_flags import HUBSPOT, add_do_not_call_property

PHONE, EMAIL = "+12125550123", "maya.lindqvist@example.com"
FILTERS = {"send": "17", "mail": "18"}
PIPEDRIVE = {
    "PIPEDRIVE_DO_NOT_CALL_FILTER": FILTERS["send"],
    "PIPEDRIVE_DO_NOT_EMAIL_FILTER": FILTERS["mail"],
}
POLICY = MessagingPolicy(
    quiet_hours=NO_QUIET,
    caps={"sms": Cap(100, timedelta(hours=24))},
    total_caps={},
    crm_opt_outs={"crm": "crm"},
)


@dataclass
class InMemoryCrm:
    """A CRM that flags addresses, and fails as configured."""

    flagged: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Address -> channels."""
    calls: list[list[str]] = field(default_factory=list)
    """The addresses of each call."""
    fail: Callable[[Sequence[str]], None] | None = None

    def connector(self) -> Connector:
        connector = Connector("crm", settings=ConnectorSettings, limits=Limits(concurrency=2))

        @connector.opt_out_flags
        def flags(client: Any, emails: Sequence[str], phones: Sequence[str]) -> Mapping[str, Any]:
            addresses = [*emails, *phones]
            self.calls.append(addresses)
            if self.fail:
                self.fail(addresses)
            return {
                address: [OptOutFlag("no_messages", self.flagged[address])]  # type: ignore[arg-type]
                for address in addresses
                if address in self.flagged
            }

        return connector


@dataclass
class CrmEngine:
    """An engine whose messages need the answers of a CRM, one step at a time."""

    engine: Engine
    crm: InMemoryCrm
    account: Account

    def __post_init__(self) -> None:
        self.account.submit = lambda work: work()  # type: ignore[method-assign]
        self.reader = OptOutReader(
            self.engine.database, Accounts({"crm": self.account}), lambda: {"crm": "crm"}
        )

    def ask(self) -> None:
        """Make the queries that are due, as a worker does after the batch window."""
        self.engine.database.clock.advance(seconds=0.2)
        for _ in range(4):
            self.reader.poll(self.account)

    def run(self) -> None:
        """Claim the messages, ask the CRM and send."""
        self.engine.run_due()
        self.ask()
        self.engine.run_due()

    def deliver(self, use: str, phone: str = PHONE, email: str = EMAIL, **planned: Any) -> str:
        """Store a delivery about a new event of this contact."""
        person = {"contactPhone": phone, "contactEmail": email}
        return self.engine.deliver(use, self.engine.event(metadata=person), **planned)

    def show(self, delivery_id: str) -> dict[str, Any]:
        return self.engine.show(delivery_id)

    def recipients(self) -> list[str]:
        return [recipient for _, recipient in self.engine.provider.messages]


@pytest.fixture
def crm() -> InMemoryCrm:
    return InMemoryCrm()


@pytest.fixture
def bridge(database: Database, crm: InMemoryCrm) -> CrmEngine:
    engine = Engine(database, policy_config=PolicyConfig(POLICY), slots=400)
    return CrmEngine(engine, crm, Account("crm", crm.connector(), ConnectorSettings()))


def waiting_count(database: Database) -> int:
    with database.read() as conn:
        return int(conn.execute(select(func.count()).select_from(schema.opt_out_queries)).scalar_one())


@pytest.mark.parametrize(
    "waited_for", ["results: waits for desk.open_ticket (dlv_1), which is pending", None]
)
def test_answer_sends_a_message_that_waited_for_something_else_before(
    bridge: CrmEngine, waited_for: str | None
) -> None:
    bridge.deliver("send")
    with bridge.engine.database.write() as conn:
        conn.execute(schema.deliveries.update().values(detail=waited_for))
    bridge.run()
    assert bridge.recipients() == [PHONE]


def failing(error: Callable[[], Exception]) -> Callable[[Sequence[str]], None]:
    def fail(_addresses: Sequence[str]) -> None:
        raise error()

    return fail


# --------------------------------------------------------------------------------------------- decision


@pytest.mark.parametrize(
    ("use", "address", "channels"), [("send", PHONE, PHONE_CHANNELS), ("mail", EMAIL, ("email",))]
)
def test_flagged_contact_gets_no_message(
    bridge: CrmEngine, use: str, address: str, channels: tuple[str, ...]
) -> None:
    bridge.crm.flagged[address] = channels
    delivery_id = bridge.deliver(use)
    bridge.run()
    shown = bridge.show(delivery_id)
    assert (shown["state"], shown["reason"]) == ("suppressed", "opted_out")
    assert "messaging.crm_opt_outs: no_messages is set in crm" in shown["detail"]
    assert bridge.recipients() == []
    with bridge.engine.database.read() as conn:
        # The CRM remains the owner of its flag.
        assert conn.execute(select(schema.opt_outs)).all() == []


def test_contact_without_a_flag_gets_the_message_after_the_answer(bridge: CrmEngine) -> None:
    delivery_id = bridge.deliver("send")
    bridge.engine.run_due()
    shown = bridge.show(delivery_id)
    assert shown["state"] == "pending"
    assert shown["detail"] == (
        "messaging.crm_opt_outs: asking crm whether the contact wants no text messages"
    )
    assert bridge.recipients() == []
    bridge.run()
    assert bridge.show(delivery_id)["state"] == "succeeded"
    assert bridge.recipients() == [PHONE]
    assert waiting_count(bridge.engine.database) == 0


def test_flag_of_another_channel_does_not_count(bridge: CrmEngine) -> None:
    bridge.crm.flagged = {PHONE: ("email",), EMAIL: ("email",)}
    bridge.deliver("send")
    bridge.run()
    assert bridge.recipients() == [PHONE]


def test_flag_of_the_contacts_other_address_counts(bridge: CrmEngine) -> None:
    """The record in the CRM has the contact's email address, but no phone number."""
    bridge.crm.flagged[EMAIL] = PHONE_CHANNELS
    delivery_id = bridge.deliver("send")
    bridge.run()
    assert bridge.show(delivery_id)["reason"] == "opted_out"


def test_flag_of_the_contact_does_not_count_for_another_recipient(bridge: CrmEngine) -> None:
    bridge.crm.flagged = {PHONE: PHONE_CHANNELS, EMAIL: PHONE_CHANNELS}
    bridge.deliver("send", recipient="+12125550199", params={"to": "+12125550199"})
    bridge.run()
    assert bridge.recipients() == ["+12125550199"]


def test_without_the_setting_nothing_is_asked(bridge: CrmEngine) -> None:
    bridge.engine.policy_config = PolicyConfig(replace(POLICY, crm_opt_outs={}))
    bridge.deliver("send")
    bridge.engine.run_due()
    assert bridge.recipients() == [PHONE]
    assert waiting_count(bridge.engine.database) == 0


def test_messages_to_the_team_and_other_actions_are_not_asked_about(bridge: CrmEngine) -> None:
    bridge.deliver("mail", internal=True)
    bridge.deliver("post")
    bridge.engine.run_due()
    assert bridge.recipients() == [EMAIL]
    assert waiting_count(bridge.engine.database) == 0


def test_stored_opt_out_needs_no_answer(bridge: CrmEngine) -> None:
    """What would not be sent anyway costs no request."""
    bridge.engine.policy_config = PolicyConfig(replace(POLICY, consent="false"), consent=lambda _: "false")
    delivery_id = bridge.deliver("send")
    bridge.run()
    assert bridge.show(delivery_id)["reason"] == "no_consent"
    assert bridge.crm.calls == []


# --------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize("flagged", [True, False])
def test_answer_is_cached_for_an_hour(bridge: CrmEngine, flagged: bool) -> None:
    if flagged:
        bridge.crm.flagged[PHONE] = PHONE_CHANNELS
    clock = bridge.engine.database.clock
    for minutes, calls in ((0, 1), (59, 1), (2, 2)):
        clock.advance(minutes=minutes)
        bridge.deliver("send")
        bridge.run()
        assert len(bridge.crm.calls) == calls
    assert bridge.engine.states() == {"suppressed" if flagged else "succeeded": 3}


def test_cleared_flag_applies_after_an_hour(bridge: CrmEngine) -> None:
    bridge.crm.flagged[PHONE] = PHONE_CHANNELS
    bridge.deliver("send")
    bridge.run()
    bridge.crm.flagged.clear()
    bridge.engine.database.clock.advance(hours=1)
    bridge.deliver("send")
    bridge.run()
    assert bridge.recipients() == [PHONE]


def test_erasing_an_address_deletes_its_answer(bridge: CrmEngine) -> None:
    bridge.deliver("send")
    bridge.run()
    assert erase(bridge.engine.database, "tester", PHONE, ()).cached_contacts == 1


def test_retention_deletes_answers_and_queries_that_nothing_waits_for(bridge: CrmEngine) -> None:
    database = bridge.engine.database
    bridge.deliver("send")
    bridge.engine.run_due()
    prune_batch(database, timedelta(days=30), Rules("", "rules"))
    assert waiting_count(database) == 1
    bridge.engine.policy_config = PolicyConfig(replace(POLICY, crm_opt_outs={}))
    database.clock.advance(minutes=6)
    bridge.engine.run_due()
    assert bridge.recipients() == [PHONE]
    prune_batch(database, timedelta(days=30), Rules("", "rules"))
    assert waiting_count(database) == 0


# --------------------------------------------------------------------------------------------- failures


def test_message_waits_while_the_crm_is_down(bridge: CrmEngine) -> None:
    bridge.crm.fail = failing(lambda: OutcomeUnknown("crm answered 503", reason="server_error"))
    delivery_id = bridge.deliver("send")
    for _ in range(60):
        bridge.run()
        bridge.engine.database.clock.advance(seconds=5)
    shown = bridge.show(delivery_id)
    assert shown["state"] == "pending"
    assert shown["detail"] == "messaging.crm_opt_outs: no answer from crm yet: crm answered 503"
    [row] = [row for row in all_connections(bridge.engine.database) if row["name"] == "crm"]
    assert row["pause_cause"] == "circuit_open"
    assert len(bridge.crm.calls) <= 31  # one per retry interval, and then one per probe
    bridge.crm.fail = None
    bridge.engine.database.clock.advance(seconds=10)
    bridge.run()
    assert bridge.recipients() == [PHONE]


def test_message_expires_if_the_crm_does_not_answer_in_time(bridge: CrmEngine) -> None:
    bridge.crm.fail = failing(lambda: OutcomeUnknown("crm answered 503", reason="server_error"))
    clock = bridge.engine.database.clock
    delivery_id = bridge.deliver("send", expires_at=clock.now() + timedelta(minutes=7))
    bridge.run()
    clock.advance(minutes=8)
    bridge.crm.fail = None
    bridge.run()
    shown = bridge.show(delivery_id)
    assert (shown["state"], shown["reason"]) == ("suppressed", "expired")
    assert "messaging.crm_opt_outs: no answer from crm yet: crm answered 503" in shown["detail"]
    assert bridge.recipients() == []


def test_rejected_account_pauses_the_crm_and_nothing_else(bridge: CrmEngine) -> None:
    bridge.crm.fail = failing(lambda: AuthenticationError("the token lacks a scope"))
    bridge.deliver("send")
    bridge.run()
    rows = {row["name"]: row for row in all_connections(bridge.engine.database)}
    assert (rows["crm"]["pause_cause"], rows["crm"]["alert_due"]) == ("auth", True)
    assert rows["desk"]["pause_cause"] is None
    bridge.deliver("post")
    bridge.engine.run_due()
    assert len(bridge.engine.provider.posts) == 1
    bridge.ask()
    assert len(bridge.crm.calls) == 1
    bridge.crm.fail = None
    resume(bridge.engine.database, "crm", "tester")
    bridge.run()
    assert bridge.recipients() == [PHONE]


def test_rate_limit_of_the_crm_is_honored(bridge: CrmEngine) -> None:
    bridge.crm.fail = failing(lambda: RateLimited("429", retry_after=timedelta(seconds=60)))
    bridge.deliver("send")
    bridge.run()
    bridge.crm.fail = None
    bridge.run()
    assert len(bridge.crm.calls) == 1
    bridge.engine.database.clock.advance(seconds=60)
    bridge.run()
    assert bridge.recipients() == [PHONE]


def test_paused_connection_of_the_crm_is_not_asked(bridge: CrmEngine) -> None:
    pause(bridge.engine.database, "crm", "maintenance", "tester")
    bridge.deliver("send")
    bridge.run()
    assert (bridge.crm.calls, bridge.recipients()) == ([], [])
    resume(bridge.engine.database, "crm", "tester")
    bridge.run()
    assert bridge.recipients() == [PHONE]


def test_address_that_the_crm_rejects_holds_up_no_other(bridge: CrmEngine) -> None:
    bad = phone_number(7)

    def fail(addresses: Sequence[str]) -> None:
        if bad in addresses:
            raise PermanentError("crm answered 400", code="INVALID")

    bridge.crm.fail = fail
    for number in range(20):
        bridge.deliver("send", phone_number(number), email_address(number))
    bridge.run()
    assert len(bridge.recipients()) == 19
    assert bad not in bridge.recipients()


def test_query_of_a_dead_worker_is_made_again(bridge: CrmEngine) -> None:
    database = bridge.engine.database
    bridge.deliver("send")
    bridge.engine.run_due()
    database.clock.advance(seconds=1)
    assert claim_query(database, "crm", None).query is not None  # and the worker dies
    assert claim_query(database, "crm", None).query is None
    database.clock.advance(seconds=QUERY_LEASE.total_seconds())
    bridge.run()
    assert bridge.recipients() == [PHONE]


def test_result_of_the_wrong_type_is_no_answer(bridge: CrmEngine) -> None:
    connector = Connector("crm", settings=ConnectorSettings)
    connector.opt_out_flags(lambda client, emails, phones: None)
    bridge.account.connector = connector
    delivery_id = bridge.deliver("send")
    bridge.run()
    assert bridge.recipients() == []
    assert "did not return opt-out flags" in bridge.show(delivery_id)["detail"]


def test_requests_per_second_of_the_crm_apply(bridge: CrmEngine) -> None:
    bridge.account.limits = Limits(concurrency=2, per_second=0.01)
    add_deliveries(bridge.engine, 250)
    bridge.engine.run_due()
    bridge.ask()
    assert len(bridge.crm.calls) == 1
    bridge.ask()
    assert len(bridge.crm.calls) == 1
    bridge.engine.database.clock.advance(seconds=100)
    bridge.ask()
    assert len(bridge.crm.calls) == 2


# --------------------------------------------------------------------------------------------- providers


@contextmanager
def running_worker(engine: Engine, account: Account) -> Iterator[None]:
    """Run the worker with its threads, and the account of a CRM."""
    worker = worker_on(engine)
    worker._accounts.add({account.name: account})
    worker.start()
    try:
        yield
    finally:
        worker.stop()


def crm_account(sandbox: RunningSandbox, name: str) -> Account:
    connector = load_connector(name)
    environ = {**sandbox.environment, **HUBSPOT, **PIPEDRIVE}
    return Account(name, connector, read_settings(connector, name, environ))


def crm_engine(database: Database, name: str) -> Engine:
    policy = replace(POLICY, crm_opt_outs={name: name})
    return Engine(database, policy_config=PolicyConfig(policy), slots=64)


def flag(sandbox: RunningSandbox, name: str, number: int, use: str) -> None:
    """Set the flag of a contact, as a user of the CRM would."""
    phone, email = phone_number(number), email_address(number)
    if name == "pipedrive":
        for number_of_filter in FILTERS.values():
            sandbox.pipedrive.filters.setdefault(number_of_filter, set())
        address = {"phone": phone} if use == "send" else {"email": email}
        person = sandbox.pipedrive.add("person", name="X", **address)
        sandbox.pipedrive.filters[FILTERS[use]].add(person.id)
    elif name == "salesforce":
        flag_name = "DoNotCall" if use == "send" else "HasOptedOutOfEmail"
        sandbox.salesforce.add("Contact", LastName="X", Phone=phone, Email=email, **{flag_name: True})
    elif use == "send":
        sandbox.hubspot.add("contacts", phone=f"({phone[2:5]}) {phone[5:8]}-{phone[8:]}", do_not_call="true")
    else:
        sandbox.hubspot.add("contacts", email=email)
        sandbox.hubspot.unsubscribe(email)


@pytest.mark.parametrize("use", ["send", "mail"])
@pytest.mark.parametrize("name", ["hubspot", "salesforce", "pipedrive"])
def test_flag_in_the_crm_suppresses_the_message(
    database: Database, sandbox: RunningSandbox, name: str, use: str
) -> None:
    add_do_not_call_property(sandbox)
    engine = crm_engine(database, name)
    flag(sandbox, name, 1, use)
    flag(sandbox, name, 2, "mail" if use == "send" else "send")
    people = [{"contactPhone": phone_number(n), "contactEmail": email_address(n)} for n in (1, 2, 3)]
    ids = [engine.deliver(use, engine.event(metadata=person)) for person in people]
    with running_worker(engine, crm_account(sandbox, name)):
        assert eventually(lambda: engine.states()["pending"] == 0)
    states = [engine.show(delivery_id)["state"] for delivery_id in ids]
    assert states == ["suppressed", "succeeded", "succeeded"]
    assert name in engine.show(ids[0])["detail"]


def test_message_is_sent_once_hubspot_is_back(database: Database, sandbox: RunningSandbox) -> None:
    add_do_not_call_property(sandbox)
    engine = crm_engine(database, "hubspot")
    sandbox.fault("hubspot", status=503, times=None)
    delivery_id = engine.deliver("send")
    with running_worker(engine, crm_account(sandbox, "hubspot")):
        assert eventually(lambda: "HubSpot answered 503" in (engine.show(delivery_id)["detail"] or ""))
        assert engine.provider.messages == []
        sandbox.clear_faults()
        database.clock.advance(seconds=15)
        assert eventually(lambda: engine.show(delivery_id)["state"] == "succeeded")
    assert len(engine.provider.messages) == 1


@pytest.mark.parametrize(
    ("name", "count", "limit"),
    [
        ("hubspot", 200, 20),
        ("salesforce", 200, 35),
        pytest.param("hubspot", 1000, 90, marks=pytest.mark.faults),
        pytest.param("salesforce", 1000, 160, marks=pytest.mark.faults),
    ],
)
def test_backlog_costs_few_requests(
    database: Database, sandbox: RunningSandbox, name: str, count: int, limit: int
) -> None:
    """Messages to different people: their addresses are asked for together."""
    add_do_not_call_property(sandbox)
    engine = crm_engine(database, name)
    for number in range(0, count, 100):
        flag(sandbox, name, number, "send")
    add_deliveries(engine, count)
    sandbox.clear_requests()
    with running_worker(engine, crm_account(sandbox, name)):
        assert eventually(lambda: engine.states()["pending"] + engine.states()["running"] == 0, seconds=120)
    requests = len(sandbox.requests_to(name))
    assert len(engine.provider.messages) == count * 99 // 100
    assert requests <= limit, requests


def add_deliveries(engine: Engine, count: int) -> None:
    """Store text messages to different people, in few transactions."""
    clock = engine.database.clock
    incoming = []
    for number in range(count):
        person = {
            "conversationId": f"conv_{number}",
            "metadata.contactPhone": phone_number(number),
            "metadata.contactEmail": email_address(number),
            "webhookId": f"wh_{number}",
        }
        made: Event = replace(event("call.busy", person, clock=clock), id=new_id("evt"))
        incoming.append(IncomingEvent(made, json.dumps(dict(made.body)).encode()))
    for start in range(0, count, 200):
        store_events(engine.database, incoming[start : start + 200])
    with engine.database.write() as conn:
        conn.execute(
            schema.deliveries.insert(), [engine.delivery_row("send", item.event) for item in incoming]
        )

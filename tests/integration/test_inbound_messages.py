"""Replies to texts: every one is an event, and an opt-out in it is stored with it, once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bridge.connector import InboundMessage, StatusUpdate
from bridge.events import Event
from bridge.store.database import Database
from bridge.store.delivery_status import apply_callback
from bridge.store.erase import erase
from bridge.store.inbound_messages import last_inbound_at
from bridge.store.opt_out_list import list_opt_outs
from bridge.store.queries import NotFound, list_events, stored_body, stored_event
from tests.integration.engine import Engine

PHONE = "+12125550167"


def reply(
    database: Database, text: str = "Call me at 5", *, sid: str = "SM1", phone: str = PHONE, **changes: Any
) -> None:
    message = InboundMessage(sid, changes.pop("channel", "sms"), phone, "+12125550100", text, **changes)
    assert apply_callback(database, "desk", [message]) == []


def replies(database: Database) -> list[Event]:
    """Return the stored texts, newest first."""
    return [
        stored_event(database, item["id"])
        for item in list_events(database).items
        if item["type"] == "sms.received"
    ]


def opted_out(database: Database) -> list[tuple[str, str, str]]:
    return [(row["channel"], row["address"], row["source"]) for row in list_opt_outs(database).items]


def test_a_reply_is_an_event_with_the_contact_and_the_conversation_of_the_text(engine: Engine) -> None:
    event = engine.event(metadata={"contactEmail": "ines@example.com", "timezone": "America/Denver"})
    engine.deliver("send", event)
    engine.run_due()
    reply(engine.database, media=("https://api.twilio.com/media/1",))
    [text] = replies(engine.database)
    assert dict(text.body) == {
        "event": "sms.received",
        "timestamp": text.body["timestamp"],
        "webhookId": "desk:SM1",
        "conversationId": event.conversation.id,
        "connection": "desk",
        "channel": "sms",
        "messageId": "SM1",
        "from": PHONE,
        "to": "+12125550100",
        "text": "Call me at 5",
        "media": ["https://api.twilio.com/media/1"],
        "button": None,
        "optOut": False,
        "optIn": False,
        "metadata": {
            "contactName": "Ines Okafor",
            "contactPhone": PHONE,
            "contactEmail": "ines@example.com",
            "timezone": "America/Denver",
        },
    }
    assert (text.contact.first_name, text.contact.phone) == ("Ines", PHONE)


def test_a_reply_after_a_week_is_a_conversation_of_its_own(engine: Engine) -> None:
    engine.deliver("send")
    engine.run_due()
    engine.database.clock.advance(days=7, seconds=1)
    reply(engine.database)
    [text] = replies(engine.database)
    assert text.conversation.id == "desk:SM1"
    assert text.contact.name == "Ines Okafor"


def test_a_reply_belongs_to_the_last_text_on_its_channel(engine: Engine) -> None:
    first, last = engine.event(), engine.event()
    for event in (first, last):
        engine.deliver("send", event)
        engine.run_due()
        engine.database.clock.advance(minutes=1)
    reply(engine.database, sid="SM1")
    reply(engine.database, sid="SM2", channel="whatsapp")
    conversations = {text.body["messageId"]: text.conversation.id for text in replies(engine.database)}
    assert conversations == {"SM1": last.conversation.id, "SM2": "desk:SM2"}


def test_a_text_from_a_stranger_or_a_service_is_kept(database: Database) -> None:
    reply(database, sid="SM1", phone="+14155550123", channel="whatsapp", sender_name="Noor Haddad")
    reply(database, "Your code is 1234", sid="SM2", phone="72727")
    by_sid = {text.body["messageId"]: text for text in replies(database)}
    assert (by_sid["SM1"].contact.name, by_sid["SM1"].body["channel"]) == ("Noor Haddad", "whatsapp")
    assert (by_sid["SM2"].contact.key, by_sid["SM2"].body["from"]) == (None, "72727")


@pytest.mark.parametrize(
    ("text", "keyword", "channel"),
    [
        ("Stop please", None, "sms"),
        ("please don't text me again", None, "sms"),
        ("ARRÊT", None, "whatsapp"),
        ("Basta!", "stop", "sms"),
    ],
)
def test_a_stop_in_any_words_is_an_opt_out_of_its_channel(
    database: Database, text: str, keyword: Any, channel: Any
) -> None:
    reply(database, text, keyword=keyword, channel=channel)
    assert opted_out(database) == [(channel, PHONE, "STOP to desk")]
    [event] = replies(database)
    assert (event.body["optOut"], event.body["optIn"], event.body["text"]) == (True, False, text)


def test_another_spelling_of_the_sender_is_the_same_person(database: Database) -> None:
    reply(database, "STOP", phone="+44 (0)7911 123456")
    assert opted_out(database) == [("sms", "+447911123456", "STOP to desk")]


@pytest.mark.parametrize(("text", "keyword"), [("The bus stop is closed", None), ("STOP", "help")])
def test_another_text_is_no_opt_out(database: Database, text: str, keyword: Any) -> None:
    reply(database, text, keyword=keyword)
    assert opted_out(database) == []


def test_stop_from_a_short_code_opts_nobody_out(database: Database) -> None:
    reply(database, "STOP", phone="72727")
    assert opted_out(database) == []
    assert len(replies(database)) == 1


def test_a_repeated_start_does_not_undo_a_later_stop(database: Database) -> None:
    """A recorded callback that is sent again is signed, so only its message ID tells that it is old."""
    reply(database, "START", sid="SM1")
    reply(database, "STOP", sid="SM2")
    for _ in range(2):
        reply(database, "START", sid="SM1")
    assert opted_out(database) == [("sms", PHONE, "STOP to desk")]
    assert len(replies(database)) == 2


def test_start_undoes_a_stop(database: Database) -> None:
    reply(database, "STOP", sid="SM1")
    reply(database, "Start!", sid="SM2")
    assert opted_out(database) == []
    assert replies(database)[0].body["optIn"] is True


def test_two_equal_texts_of_one_moment_are_two_events(database: Database) -> None:
    reply(database, "ok", sid="SM1")
    reply(database, "ok", sid="SM2")
    assert len(replies(database)) == 2


def test_a_text_that_cannot_be_stored_leaves_no_opt_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("bridge.store.delivery_status.save_opt_outs", broken)
    with pytest.raises(RuntimeError):
        reply(database, "STOP")
    assert (replies(database), opted_out(database)) == ([], [])


def test_a_webhook_with_the_name_of_a_text_sets_no_opt_out(engine: Engine) -> None:
    """Heppu signs what it sends, but only the provider of a text can say who opted out."""
    engine.event("sms.received", text="STOP", optOut=True)
    assert len(replies(engine.database)) == 1
    assert opted_out(engine.database) == []


def test_erasing_a_number_deletes_its_texts(engine: Engine) -> None:
    reply(engine.database, "My name is Ines")
    [text] = replies(engine.database)
    erase(engine.database, "test", PHONE, [b"secret"])
    with pytest.raises(NotFound):
        stored_body(engine.database, text.id)


def test_status_and_text_can_be_reported_together(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    engine.run_due()
    message = InboundMessage("SM1", "sms", PHONE, "+12125550100", "STOP")
    apply_callback(
        engine.database, "desk", [StatusUpdate("delivered", f"sms-{delivery_id}", delivery_id), message]
    )
    assert engine.show(delivery_id)["message_status"] == "delivered"
    assert len(opted_out(engine.database)) == 1


def test_last_message_of_a_person_is_known_by_channel_number_and_connection(engine: Engine) -> None:
    """WhatsApp takes free text only for a day after it."""
    database = engine.database
    clock = database.clock

    def last(channel: str = "whatsapp", to: str | None = None, connection: str = "desk") -> int | None:
        """Return how many hours ago it was."""
        now = clock.now()
        found = last_inbound_at(database, connection, channel, PHONE, to, now)
        return None if found is None else round((now - found) / timedelta(hours=1))

    assert last() is None
    reply(database, channel="whatsapp")
    clock.advance(hours=2)
    reply(database, sid="SM2")
    assert (last(), last("sms")) == (2, 0)
    assert (last(to="+12125550100"), last(to="+12125550199")) == (2, None)
    assert last(connection="desk_2") is None
    reply(database, "Thanks", sid="SM3", channel="whatsapp")
    assert last() == 0
    clock.advance(days=8)
    assert last() is None


def test_last_message_of_an_erased_person_is_forgotten(engine: Engine) -> None:
    reply(engine.database, channel="whatsapp")
    erase(engine.database, "test", PHONE, [b"secret"])
    assert (
        last_inbound_at(engine.database, "desk", "whatsapp", PHONE, None, engine.database.clock.now()) is None
    )

"""Names that are more than a name: messages to customers leave them out, the team and records see them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.contacts.plain_text import is_plain_name
from bridge.rules.model import PlannedDelivery
from bridge.rules.route import route
from tests.unit.rules.helpers import NOW, event_of, rules_of

PHISHING = "your parcel is held: https://evil.example/p"
NAMES = (
    "metadata__contactName",
    "callMetadata__customer__name",
    "callMetadata__customer__firstName",
    "callMetadata__customer__lastName",
    "callMetadata__customer__company",
    "callMetadata__firstName",
    "callMetadata__lastName",
    "callMetadata__company",
    "metadata__company",
)
"""Every field of an event that is read as a name or a company."""
FIELDS = [
    "contact.name",
    "contact.first_name",
    "contact.last_name",
    "contact.company",
    *("event." + name.replace("__", ".") for name in NAMES),
]


def planned(step: str, **changes: Any) -> PlannedDelivery:
    rules = rules_of(f"- name: a\n  when: call.busy\n  do:\n    - {step}")
    (delivery,) = route(event_of(**changes), rules, NOW).planned
    return delivery


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text", [PHISHING, "evil\u3002example", "call +1 900 555 0199", "your parcel is held at customs"]
)
def test_a_message_to_a_customer_never_repeats_it(name: str, text: str) -> None:
    body = " ".join(f"{{{{ {field} | default('there') }}}}" for field in FIELDS)
    delivery = planned(f'use: phone.send\n      with: {{body: "{body}"}}', **{name: text})
    assert delivery.render_error is None
    assert text not in delivery.params["body"]
    assert not {"evil", "900", "parcel"} & set(delivery.params["body"].replace("\u3002", " ").split())


EVERY_FIELD = rules_of(
    '- name: a\n  when: call.busy\n  do:\n    - use: phone.send\n      with: {body: "'
    + "|".join(f"{{{{ {field} | default('there') }}}}" for field in FIELDS)
    + '"}'
)
TEXTS = st.one_of(
    st.text(max_size=50),
    st.sampled_from(
        [PHISHING, "Anna", "Dr. Weber", "Beethoven, Ludwig van", "Anna 🌸", "evil\u2024example", "Acme, Inc."]
    ),
    st.text("Aab.:/\u3002\u200d @1", max_size=20),
).filter(lambda text: "|" not in text)


@given(st.lists(TEXTS, min_size=len(NAMES), max_size=len(NAMES)))
def test_whatever_names_hold_only_plain_text_is_inserted(texts: list[str]) -> None:
    changes: dict[str, Any] = dict(zip(NAMES, texts, strict=True))
    (delivery,) = route(event_of(**changes), EVERY_FIELD, NOW).planned
    assume(delivery.render_error is None)  # the body of this connector has at most 160 characters
    for value in delivery.params["body"].split("|"):
        value = " ".join(value.split())
        assert is_plain_name(value) or not any(char.isalnum() for char in value)


def test_every_name_at_once() -> None:
    body = "|".join(f"{{{{ {field} | default('there') }}}}" for field in FIELDS)
    delivery = planned(f'use: phone.send\n      with: {{body: "{body}"}}', **dict.fromkeys(NAMES, PHISHING))
    assert delivery.params["body"] == "|".join(["there"] * len(FIELDS))


def test_without_a_default_the_delivery_says_why() -> None:
    delivery = planned(
        'use: phone.send\n      with: {body: "Hi {{ contact.name }}"}', metadata__contactName=PHISHING
    )
    assert "metadata.contactName is more than a name" in (delivery.render_error or "")
    assert "evil" not in (delivery.render_error or "")


def test_a_condition_in_a_message_takes_it_for_missing() -> None:
    body = "{% if contact.name is filled %}Hi {{ contact.name }}{% else %}Hi{% endif %}"
    delivery = planned(f'use: phone.send\n      with: {{body: "{body}"}}', metadata__contactName=PHISHING)
    assert delivery.params["body"] == "Hi"


def test_the_team_sees_what_was_given() -> None:
    delivery = planned(
        'use: team.post\n      with: {text: "{{ contact.name }}"}', metadata__contactName=PHISHING
    )
    assert delivery.params["text"] == PHISHING
    internal = 'use: phone.send\n      with: {to: "+12125550199", body: "{{ contact.name }}"}'
    assert planned(internal, metadata__contactName=PHISHING).params["body"] == PHISHING


@pytest.mark.parametrize("given", ["Anna Weber 🌸", 'Anna "Annie" Weber', "Anna Weber (see evil.example)"])
def test_the_plain_parts_of_a_name_stay(given: str) -> None:
    delivery = planned(
        'use: phone.send\n      with: {body: "{{ contact.name }}"}',
        metadata__contactName=given,
        callMetadata__customer__name=...,
    )
    assert delivery.params["body"] == "Anna Weber"


def test_a_plain_name_stays() -> None:
    delivery = planned(
        'use: phone.send\n      with: {body: "{{ contact.name }}, {{ contact.first_name }}, {{ contact.company }}"}',
        metadata__contactName="Beethoven, Ludwig van",
        callMetadata__customer__company="Acme, Inc.",
        callMetadata__customer__name=...,
    )
    assert delivery.params["body"] == "Ludwig van Beethoven, Ludwig, Acme, Inc."

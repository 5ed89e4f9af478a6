"""Idempotency keys of two rules for one event: when they differ, and when the second is a duplicate."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bridge.connector.discovery import Registry
from bridge.events import Event
from bridge.rules.load import load_or_raise
from bridge.rules.route import route
from bridge.samples import sample

NOW = datetime(2026, 3, 2, 15, 20, tzinfo=UTC)


def idempotency_keys(first: str, second: str) -> list[str]:
    text = f"""
version: 1
rules:
  - name: one
    when: call.failed
    do:
      - {first}
  - name: two
    when: call.failed
    do:
      - {second}
"""
    rules = load_or_raise(text, path="rules.yaml", registry=Registry())
    return [
        planned.idempotency_key
        for planned in route(Event(sample("call.failed"), "whd_1", NOW), rules, NOW).planned
    ]


def test_different_posts_of_two_rules_have_different_keys() -> None:
    one, two = idempotency_keys(
        "{use: slack.post, with: {text: A call failed}}", "{use: slack.post, with: {text: Mind the queue}}"
    )
    assert one != two


def test_equal_posts_of_two_rules_have_the_same_key() -> None:
    one, two = idempotency_keys(
        "{use: slack.post, with: {text: A call failed}}", "{use: slack.post, with: {text: A call failed}}"
    )
    assert one == two


def test_http_post_key_depends_on_url() -> None:
    to_a, to_b = (
        "{use: http.post, with: {url: https://a.example}}",
        "{use: http.post, with: {url: https://b.example}}",
    )
    assert len(set(idempotency_keys(to_a, to_b))) == 2
    assert len(set(idempotency_keys(to_a, to_a))) == 1


@pytest.mark.parametrize("crm", ["hubspot", "salesforce"])
def test_task_key_depends_on_params(crm: str) -> None:
    call, send = (
        f"{{use: {crm}.create_task, with: {{subject: {subject}}}}}"
        for subject in ("Call back", "Send the offer")
    )
    assert len(set(idempotency_keys(call, send))) == 2
    assert len(set(idempotency_keys(call, call))) == 1


@pytest.mark.parametrize(
    "action",
    [
        "hubspot.upsert_contact",
        "hubspot.update_contact",
        "salesforce.update_lead",
        "pipedrive.upsert_person",
    ],
)
def test_field_update_key_depends_on_fields(action: str) -> None:
    one, other = (f"{{use: {action}, with: {{properties: {{{name}: x}}}}}}" for name in ("Title", "Rating"))
    assert len(set(idempotency_keys(one, other))) == 2
    assert len(set(idempotency_keys(one, one))) == 1


@pytest.mark.parametrize("action", ["hubspot.close_ticket", "salesforce.close_case"])
def test_close_ticket_key_ignores_params(action: str) -> None:
    one, other = f"{{use: {action}}}", f"{{use: {action}, with: {{without_id: newest}}}}"
    assert len(set(idempotency_keys(one, other))) == 1

"""Rules about replies to texts: a text cancels what it answers, and two machines cannot answer each other for ever."""

from __future__ import annotations

from bridge.connector.discovery import Registry
from bridge.dryrun.rule_tests import run_tests
from bridge.rules.load import load

RULES = """
version: 1
rules:
  - name: auto-reply
    when: sms.received
    where: {event.optOut: false}
    do: [{use: twilio.send_sms, with: {body: "Thank you, we read your message."}}]
  - name: text-again
    when: call.busy
    do: [{use: twilio.send_sms, delay: 2h, cancel_on: sms.received, with: {body: Shall we call again?}}]

tests:
  - name: the caps end a loop
    events:
      - {event: sms.received, at: "2026-03-02T11:00:00-05:00"}
      - {event: sms.received, at: "2026-03-02T11:01:00-05:00"}
      - {event: sms.received, at: "2026-03-02T11:02:00-05:00"}
    expect:
      auto-reply:
        - {use: twilio.send_sms, state: succeeded}
        - {use: twilio.send_sms, state: succeeded}
        - {use: twilio.send_sms, state: suppressed, reason: frequency_capped}
  - name: a reply at night is answered in the morning
    event: sms.received
    at: "2026-03-02T23:00:00-05:00"
    expect:
      auto-reply: [{use: twilio.send_sms, at: "2026-03-03T08:00:00-05:00"}]
  - name: a reply cancels the text that it makes superfluous
    events:
      - {event: call.busy, at: "2026-03-02T11:00:00-05:00"}
      - {event: sms.received, set: {event.optOut: true}, at: "2026-03-02T11:30:00-05:00"}
    expect:
      text-again: [{use: twilio.send_sms, state: cancelled}]
"""


def test_replies_obey_the_policy_like_every_other_message() -> None:
    loaded = load(RULES, path="rules.yaml", registry=Registry())
    assert loaded.diagnostics == ()
    assert loaded.rules is not None
    results = run_tests(loaded.rules).results
    assert [(result.name, result.mismatches) for result in results if not result.passed] == []
    assert len(results) == 3

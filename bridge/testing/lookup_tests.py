"""Tests of the conformance suite: a lookup says None only if the provider proves it."""

# ruff: noqa: D102

from __future__ import annotations

from dataclasses import dataclass

import pytest

from bridge.connector import Action, Context, Success
from bridge.errors import DeliveryError, LookupInconclusive
from bridge.testing.connection import Connected, event
from bridge.testing.response_tests import FOREIGN_PAGE
from bridge.testing.stub_server import Reply
from bridge.testing.suite_base import CONTACT, SuiteBase, listing

FAILING = (400, 401, 403, 429, 500, 503)


@dataclass(frozen=True)
class _AmongOthers:
    """What a lookup found before and after its delivery was attempted, with deliveries of others around it."""

    before: str
    after: str
    expected: str


class LookupTests(SuiteBase):
    """Lookups of actions that have one."""

    def test_lookup_fails_if_the_provider_fails(self, action: Action) -> None:
        wrong = {}
        for status in FAILING:
            found = self._find(action, Reply(status, {"error": "no"}))
            if found is not None:
                wrong[status] = found
        if wrong:
            self._fail(
                f"{action.full_name}: the lookup must raise the error of the provider, because None repeats the "
                f"action: {listing(wrong)}"
            )

    def test_lookup_of_a_foreign_page_fails(self, action: Action) -> None:
        for reply in (Reply(200, FOREIGN_PAGE), Reply(200, {"login": "please"}), Reply(204), Reply(302)):
            found = self._find(action, reply)
            if found is not None:
                shown = FOREIGN_PAGE if isinstance(reply.body, str) else reply.body
                self._fail(
                    f"{action.full_name}: the lookup returned {found} for {reply.status} with the body {shown}, "
                    "which is not the provider's; raise OutcomeUnknown unless the list that it needs is there"
                )

    def test_lookup_finds_its_record_among_others(self, action: Action) -> None:
        result = self._among_others(action)
        if result.after not in (result.expected, "LookupInconclusive"):
            self._fail(
                f"{action.full_name}: the lookup returned {result.after} instead of {result.expected}, which was "
                "created between two other records; does it read only the first page?"
            )

    def test_lookup_never_finds_the_record_of_another_delivery(self, action: Action) -> None:
        result = self._among_others(action)
        if result.before not in ("None", "LookupInconclusive"):
            self._fail(
                f"{action.full_name}: the lookup returned {result.before}, the record of another delivery; compare "
                "context.idempotency_token, or exclude context.ids_used_by_others"
            )

    def _find(self, action: Action, reply: Reply) -> str | None:
        """Return what the lookup wrongly returned if all requests are answered with `reply`."""
        self._needs_lookup(action)
        self._needs_http()
        with self._connected() as (server, connected):
            server.otherwise = reply
            try:
                found = connected.find(action.name, self.params(action), context=self._context(action))
            except (DeliveryError, LookupInconclusive) as error:
                if getattr(error, "reason", "") == "internal_error":
                    self._fail(f"{action.full_name}: the lookup fails with {error}")
                return None
            return (found and "Success") or "None"

    def _among_others(self, action: Action) -> _AmongOthers:
        self._needs_lookup(action)
        return self._once("among_others", action, lambda: self._look_among_others(action))

    def _look_among_others(self, action: Action) -> _AmongOthers:
        with self._provider() as (_, connected):
            others: set[str] = set()
            context = self._context(action, ids_used_by_others=lambda ids: others.intersection(ids))
            others |= self._run_others(connected, action, "1")
            before = self._found(connected, action, context)
            ours = self._attempt(connected, action, context=context)
            others |= self._run_others(connected, action, "2")
            after = self._found(connected, action, context)
            if after != "None" and getattr(ours, "id", None) is None:
                after = "Success"
            return _AmongOthers(before, after, str(getattr(ours, "id", None) or "Success"))

    def _run_others(self, connected: Connected, action: Action, group: str) -> set[str]:
        """Attempt two deliveries of other conversations and return the IDs of their records."""
        ids = set()
        for number in "12":
            about = self.event(action)
            body = dict(about.body)
            changes = {"conversationId": f"conv_other_{group}{number}"}
            other = event(str(body["event"]), CONTACT | changes)
            result = self._attempt(connected, action, context=self._context(action, other))
            if isinstance(result, Success) and result.id:
                ids.add(result.id)
        return ids

    def _found(self, connected: Connected, action: Action, context: Context) -> str:
        try:
            found = connected.find(action.name, self.params(action), context=context)
        except LookupInconclusive:
            return "LookupInconclusive"
        return str(found.id or "Success") if found else "None"

    def _needs_lookup(self, action: Action) -> None:
        if action.run_lookup is None:
            pytest.skip("the action has no lookup")
        if self._invalid_params(action):
            pytest.skip("the sample params are invalid")

"""Service layer of the dashboard and the API: stored work, active rules, connections and operator actions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from bridge.dryrun.explain import Explanation, explain
from bridge.dryrun.permission import Permission, permissions
from bridge.dryrun.replay_preview import ReplayPreview, preview_replay
from bridge.events import Event
from bridge.lifecycle import StopScope
from bridge.rules.model import Diagnostic, Rules
from bridge.rules.route import route
from bridge.store.accept_rejected import accept_rejected_request
from bridge.store.activity import CountCache
from bridge.store.audit_log import list_audit_entries, record_audit
from bridge.store.connection_status import connection_statuses, pause_of_all
from bridge.store.connections import pause, probe_now, resume
from bridge.store.contact_history import contact_history
from bridge.store.contact_report import ContactReport, report_contact
from bridge.store.database import Database
from bridge.store.operator_actions import Action, ActionResult, Resolution, Seen, change_deliveries, resolve
from bridge.store.opt_outs import AddressHasher
from bridge.store.pause_all import SendingStop, current_stop, pause_all, resume_all
from bridge.store.pauses import ConnectionStatus, Pause
from bridge.store.policy_inputs import inputs_for_planned
from bridge.store.queries import (
    NotFound,
    show_delivery,
    show_event,
    show_rejected_request,
    stored_event,
)
from bridge.store.replay import ReplayOrder, ReplayResult, SelectedEvents, replay
from bridge.store.rerender import RerenderReport, rerender_rule
from bridge.store.rule_deliveries import (
    CancelledDeliveries,
    WaitingDeliveries,
    cancel_rule,
    waiting_deliveries,
)
from bridge.store.waiting import waiting_by_connection
from bridge.web.accounts import AccountDirectory, CheckResult
from bridge.web.health import CachedStats
from bridge.web.rules_trial import RulesTrial
from bridge.web.validation import InvalidParameter
from bridge.worker.provider_links import ProviderLinks

RecordType = Literal["event", "delivery", "rejected_request"]

_READERS = {"event": show_event, "delivery": show_delivery, "rejected_request": show_rejected_request}


class RunningRules(Protocol):
    """The active rules of this process, and the errors of the rules file if its last reload failed."""

    path: Path
    current: Rules
    loaded_at: datetime
    load_error: str | None
    diagnostics: tuple[Diagnostic, ...]
    texts: Mapping[str, str]
    """Path -> text of the files that `diagnostics` are about."""


@dataclass(frozen=True)
class AdminService:
    """Queries and operator actions for the API and the dashboard. Every method blocks: call it in a thread."""

    database: Database
    rules: RunningRules
    cached_stats: CachedStats
    hash_address: AddressHasher | None = None
    """See `bridge.store.policy_inputs.PolicyConfig`."""
    erase_keys: Sequence[bytes] = ()
    """The values of BRIDGE_SECRET_KEY, with which the opt-outs of erased contacts are kept."""
    allowlist: Collection[str] = ()
    """BRIDGE_RECIPIENT_ALLOWLIST: if it is not empty, only these recipients get messages."""
    retention: timedelta | None = None
    """BRIDGE_RETENTION."""
    links: ProviderLinks = field(default_factory=ProviderLinks)
    """Links to the providers of this process's connections."""
    trial: RulesTrial | None = None
    """Tries changed rules. None: this process cannot."""
    accounts: AccountDirectory | None = None
    """The accounts of this process. None: it has none."""
    counts: CountCache = field(default_factory=CountCache)
    """Counts of past hours, for the overview."""

    def show(self, record_type: RecordType, record_id: str) -> dict[str, Any]:
        """Return one event, delivery or rejected request with its audit entries. Raise NotFound."""
        record = _READERS[record_type](self.database, record_id)
        return record | {"audit": list_audit_entries(self.database, target=record_id)}

    def report_contact(
        self, subject: str, *, since: datetime | None = None, limit: int = 50, cursor: str | None = None
    ) -> ContactReport:
        """Report why a person got a message or did not: a phone number, an email address or a conversation ID."""
        return report_contact(
            self.database,
            subject,
            since=since,
            time_zone=self.rules.current.messaging.time_zone,
            hash_address=self.hash_address,
            limit=limit,
            cursor=cursor,
        )

    def change_delivery(
        self, action: Action, delivery_id: str, actor: str, seen: Seen | None = None
    ) -> ActionResult:
        """Carry out an action on one delivery. Raise NotFound."""
        show_delivery(self.database, delivery_id)
        return change_deliveries(self.database, actor, action, [delivery_id], seen=seen)[0]

    def resolve(
        self,
        delivery_id: str,
        actor: str,
        resolution: Resolution,
        external_id: str | None = None,
        seen: Seen | None = None,
    ) -> ActionResult:
        """Resolve a delivery that needs review. Raise NotFound."""
        show_delivery(self.database, delivery_id)
        return resolve(self.database, actor, delivery_id, resolution, external_id, seen)

    def accept(self, request_id: str, actor: str) -> ActionResult:
        """Accept a rejected request as an event. Raise NotFound."""
        return accept_rejected_request(self.database, actor, request_id)

    def replay(
        self,
        event_id: str,
        actor: str,
        *,
        rule: str | None = None,
        force: bool = False,
        reason: str | None = None,
        previewed_at: datetime | None = None,
    ) -> ReplayResult:
        """Route one event again with the active rules. Raise NotFound or InvalidParameter."""
        show_event(self.database, event_id)
        order = self.replay_order(rule, force=force, reason=reason, previewed_at=previewed_at)
        return replay(self.database, actor, [event_id], order)[0]

    def replay_order(
        self,
        rule: str | None = None,
        *,
        force: bool = False,
        reason: str | None = None,
        previewed_at: datetime | None = None,
    ) -> ReplayOrder:
        """Return how events are replayed with the active rules. Raise InvalidParameter for an unknown rule."""
        rules = self.rules.current
        if rule is not None and rules.named(rule) is None:
            raise InvalidParameter(f"no active rule is called `{rule[:80]}`")
        return ReplayOrder(
            rules,
            lambda event, now, history: route(event, rules, now, history),
            rule,
            force,
            reason,
            previewed_at,
        )

    def preview_replay(self, selected: SelectedEvents, order: ReplayOrder) -> ReplayPreview:
        """Return what a replay of these events would do."""
        return preview_replay(
            self.database, selected, order, hash_address=self.hash_address, allowlist=self.allowlist
        )

    def forecast(self, event_id: str) -> Explanation:
        """Return what the active rules would do with a stored event now. Raise NotFound."""
        rules = self.rules.current
        event = stored_event(self.database, event_id)
        with contact_history(self.database) as history:
            return explain(
                event,
                rules,
                self.database.clock.now(),
                load_inputs=lambda planned: inputs_for_planned(
                    self.database, planned, event, rules.messaging, self.hash_address
                ),
                history=history,
                allowlist=self.allowlist,
            )

    def permissions(self, event: Event, addresses: Sequence[str]) -> list[Permission]:
        """Return whether messages to these addresses would be allowed now; `event` is the newest about them."""
        return permissions(
            self.database,
            event,
            addresses,
            self.rules.current,
            self.database.clock.now(),
            allowlist=self.allowlist,
            hash_address=self.hash_address,
        )

    def pause(self, name: str, actor: str, reason: str) -> ConnectionStatus:
        """Pause a connection until an operator resumes it. Raise NotFound."""
        self.connection(name)
        pause(self.database, name, reason, actor)
        return self.connection(name)

    def resume(self, name: str, actor: str) -> ConnectionStatus:
        """Resume a connection, whatever the cause of its pause. Raise NotFound."""
        self.connection(name)
        resume(self.database, name, actor)
        return self.connection(name)

    def probe(self, name: str, actor: str) -> bool:
        """Try a connection whose circuit is open at once; False if it is not. Raise NotFound."""
        self.connection(name)
        return probe_now(self.database, name, actor)

    def check_account(self, name: str, actor: str) -> CheckResult | None:
        """Log in to the account of a connection, without writing to it; None if this process does not have it.

        Raise NotFound.
        """
        self.connection(name)
        result = self.accounts.check(name) if self.accounts else None
        if result is not None:
            with self.database.write() as conn:
                detail = {"ok": result.ok, "result": result.text[:500]}
                record_audit(conn, self.database.now(conn), actor, "check_account", [name], detail)
        return result

    def pause_of_all(self) -> Pause | None:
        """Return the pause of all connections, if an operator has paused them."""
        return pause_of_all(self.database)

    def stop(self) -> SendingStop | None:
        """Return what an operator has stopped, by pausing all connections."""
        return current_stop(self.database)

    def pause_all(
        self, actor: str, reason: str, scope: StopScope = StopScope.DELIVERIES
    ) -> list[ConnectionStatus]:
        """Pause all connections, also later ones; alerts are still sent."""
        pause_all(self.database, reason, actor, scope)
        return self.connections()

    def resume_all(self, actor: str) -> list[ConnectionStatus]:
        """End the pause of all connections. Connections that are paused by themselves stay paused."""
        resume_all(self.database, actor)
        return self.connections()

    def waiting(self) -> int:
        """Return the number of deliveries that wait for their next attempt."""
        return sum(waiting_by_connection(self.database).values())

    def waiting_of_rule(self, rule: str) -> WaitingDeliveries:
        """Return what waits of a rule. Raise NotFound if that is nothing and no active rule has this name."""
        waiting = waiting_deliveries(self.database, rule)
        if not waiting.total and self.rules.current.named(rule) is None:
            raise NotFound(f"there is no rule `{rule[:80]}`")
        return waiting

    def cancel_rule(self, rule: str, actor: str) -> CancelledDeliveries:
        """Cancel the waiting deliveries of a rule. Raise NotFound."""
        self.waiting_of_rule(rule)
        return cancel_rule(self.database, actor, rule)

    def rerender_rule(self, rule: str, actor: str) -> RerenderReport:
        """Apply the active version of a rule to its waiting deliveries. Raise NotFound."""
        rules = self.rules.current
        if rules.named(rule) is None:
            raise NotFound(f"no active rule is called `{rule[:80]}`; its deliveries can be cancelled")
        return rerender_rule(
            self.database, actor, rule, rules, lambda event, now, history: route(event, rules, now, history)
        )

    def connection(self, name: str) -> ConnectionStatus:
        """Return one connection. Raise NotFound."""
        for status in self.connections():
            if status.name == name:
                return status
        raise NotFound(f"there is no connection `{name}`")

    def connections(self) -> list[ConnectionStatus]:
        """Return every connection that was ever in use, with its pause."""
        return connection_statuses(self.database)

    def stats(self) -> dict[str, Any]:
        """Return deliveries by state, unrouted events and the oldest due time, at most a few seconds old."""
        queue, _ = self.cached_stats.get()
        return {
            "deliveries": queue.deliveries,
            "unrouted": queue.unrouted,
            "oldest_due": queue.oldest_due,
        }

    def audit(
        self,
        limit: int,
        cursor: str | None,
        *,
        action: str | None = None,
        actor: str | None = None,
        target: str | None = None,
    ) -> tuple[Sequence[dict[str, Any]], str | None]:
        """Return audit entries, newest first, and the cursor of the next page."""
        rows = list_audit_entries(
            self.database, action=action, actor=actor, target=target, limit=limit + 1, cursor=cursor
        )
        return rows[:limit], rows[limit - 1]["id"] if len(rows) > limit else None

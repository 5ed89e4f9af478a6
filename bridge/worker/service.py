"""The worker as a service: three threads that never wait inside a transaction or on a partner.

    dispatcher   what is due -> attempts, as far as each connection has room
    recorder     ends of attempts -> the store, in groups
    keeper       what happens on a slow beat: leases that ran out, the rules file, retention, metrics

Attempts themselves run in their connection's threads. Everything that waits is a row with a time.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bridge import __version__
from bridge.clock import uptime
from bridge.connector import Action
from bridge.errors import OutcomeUnknown, StoreUnavailable
from bridge.events import Event
from bridge.rules.model import Truth
from bridge.rules.route import consent
from bridge.store.claim import LEASE, Claimed, Room, claim
from bridge.store.database import EVERYTHING, Database
from bridge.store.policy_inputs import Rulebook
from bridge.store.results import Finished, abandoned, finish
from bridge.store.retention import NOTHING, prune_portion
from bridge.store.workers import beat, leave
from bridge.telemetry import Metrics, log, logged_together, mask_address
from bridge.worker.attempt import Attempts, Connection, Result
from bridge.worker.clock_jumps import Evenness
from bridge.worker.error_backoff import is_back, patience, say_and_wait
from bridge.worker.result_policy import LOOKUP_EVERY, NotBegun, conclude, cut_short
from bridge.worker.rules_reloader import RulesFile
from bridge.worker.stall_detector import Pulse

SLOW_POLL = 5.0
"""Seconds after which a thread looks for work even if nobody woke it."""
KEEPER_ROUND = 2.0
BEAT_EVERY = 15.0
PRUNE_EVERY = 3600.0
LITTLE, PAUSE = 64, 0.1
"""While events come in: calls that are claimed, or ends that are recorded, at once; and while they come in crowds,
seconds from one transaction to the next."""
HAND_ON_EVERY = 0.005
"""Seconds for which ends of attempts, and the room of calls that returned, gather where a partner is that quick."""
MAX_GROUP = 500
"""Ends of attempts that go into one transaction."""


@dataclass(frozen=True)
class WorkerSettings:
    """What the worker needs besides its connections."""

    allowlist: tuple[str, ...] = ()
    retention: timedelta = timedelta(days=30)
    erased_as: Callable[[str], str] | None = None
    """See `bridge.store.policy_inputs.Rulebook`."""


class Worker:
    """Routes, attempts and records until it is stopped."""

    def __init__(
        self,
        database: Database,
        rules: RulesFile,
        connections: Mapping[str, Connection],
        attempts: Attempts,
        settings: WorkerSettings | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.worker_id = f"{socket.gethostname()[:40]}-{os.getpid()}-{os.urandom(3).hex()}"
        self._database = database
        self._rules = rules
        self._connections = dict(connections)
        self._attempts = attempts
        self._settings = settings or WorkerSettings()
        self._metrics = metrics or Metrics()
        self._done: queue.SimpleQueue[Sequence[Finished]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._drained = threading.Event()
        self._claim_wake = threading.Condition()
        self._look_at: dict[str, float] = dict.fromkeys(self._connections, 0.0)
        self._unrecorded = 0
        self._under_way: dict[tuple[str, int], float] = {}
        """Claims of this process, and when by `uptime` they began."""
        self._begun: set[tuple[str, int]] = set()
        """Those of them whose attempt has begun: the others wait for a thread."""
        self._ended: set[tuple[str, int]] = set()
        """Those of them whose end is known and still to be recorded."""
        self._evenness = Evenness()
        self._pulse = Pulse()
        self._threads: dict[str, threading.Thread] = {}

    def start(self) -> None:
        """Take over what a dead process left behind, and begin."""
        self._database.on_change.append(self._on_change)
        beat(self._database, self.worker_id, __version__)
        self._take_over()
        self._pulse.start()
        for name, work in (
            ("dispatcher", self._dispatch), ("recorder", self._record), ("keeper", self._keep),
        ):  # fmt: skip
            thread = threading.Thread(target=work, name=f"bridge-{name}", daemon=True)
            self._threads[name] = thread
            thread.start()

    def stop(self, timeout: float = 25.0) -> bool:
        """Claim nothing more, let what runs end within `timeout` seconds; returns whether all of it did.

        What did not end keeps its lease until that runs out; then it is looked up by whoever serves next.
        """
        self._stopping.set()
        with self._claim_wake:
            self._claim_wake.notify_all()
        end = uptime() + timeout
        dispatcher = self._threads["dispatcher"]
        dispatcher.join(timeout)  # what it is just claiming is still to be counted
        with self._claim_wake:
            while self._unrecorded and uptime() < end:
                self._claim_wake.wait(min(0.5, max(0.01, end - uptime())))
            clean = self._unrecorded == 0 and not dispatcher.is_alive()
        self._drained.set()
        for thread in self._threads.values():
            thread.join(timeout=max(2.0, end - uptime()))
        self._database.on_change.remove(self._on_change)
        self._pulse.stop()
        for connection in self._connections.values():
            connection.close()
        try:
            leave(self._database, self.worker_id)
        except StoreUnavailable:
            log.warning("could not sign off", worker_id=self.worker_id)
        return clean

    def add(self, connections: Mapping[str, Connection]) -> None:
        """Work on these connections too: new rules use them."""
        with self._claim_wake:
            self._connections = {**self._connections, **connections}
            self._look_at |= dict.fromkeys(connections, 0.0)
            self._claim_wake.notify_all()

    def _on_change(self, topics: frozenset[str]) -> None:
        with self._claim_wake:
            names = self._connections.keys()
            for name in names if EVERYTHING in topics else topics & names:
                self._look_at[name] = 0.0
            self._claim_wake.notify_all()

    # The dispatcher

    def _dispatch(self) -> None:
        while not self._stopping.is_set():
            for name in self._to_look_at():
                if self._database.crowded:
                    self._stopping.wait(PAUSE)
                if self._stopping.is_set():
                    return
                claimed = False
                with patience("dispatcher", self._stopping):
                    self._claim(self._connections[name], little=self._database.brief)
                    claimed = True
                if not claimed:
                    self._on_change(frozenset([name]))

    def _to_look_at(self) -> list[str]:
        """Wait until a connection with room may have something due."""
        with self._claim_wake:
            while not self._stopping.is_set():
                now = uptime()
                ready = [
                    name
                    for name, at in self._look_at.items()
                    if at <= now and self._connections[name].free > 0
                ]
                if ready:
                    for name in ready:
                        self._look_at[name] = now + SLOW_POLL
                    return ready
                waiting = (at for name, at in self._look_at.items() if self._connections[name].free > 0)
                self._claim_wake.wait(max(0.0, min(waiting, default=now + SLOW_POLL) - now))
            return []

    def _claim(self, connection: Connection, *, little: bool) -> None:
        actions = connection.connector.actions
        begun = uptime()
        room = Room(
            connection.name,
            min(connection.free, LITTLE) if little else connection.free,
            lambda use: actions[name].batch if (name := use.partition(".")[2]) in actions else 1,
            connection.connector.limits.per_second,
            max((action.batch for action in actions.values()), default=1),
        )
        claimed = claim(self._database, room, self._rulebook(), self.worker_id)
        if claimed.calls:
            self._evenness.read(claimed.calls[0][0].started_at, begun)
        with self._claim_wake:
            connection.running += len(claimed.calls)
            self._unrecorded += sum(len(call) for call in claimed.calls)
            self._under_way |= {
                (item.id, item.fencing_token): begun for call in claimed.calls for item in call
            }
            if claimed.look_again_in is not None:
                at = begun + claimed.look_again_in.total_seconds()
                self._look_at[connection.name] = min(self._look_at[connection.name], at)
        calls = deque(claimed.calls)
        # All threads pull from them: one that a call holds up holds up no other call.
        for _ in range(min(len(calls), connection.connector.limits.concurrency)):
            try:
                connection.submit(lambda: self._attempt_all(connection, calls, begun))
            except RuntimeError as error:  # the machine has no thread to give
                log.error("no thread for an attempt", connection=connection.name, error=str(error))
                self._give_back(connection, calls, begun)

    def _attempt_all(self, connection: Connection, calls: deque[Sequence[Claimed]], begun: float) -> None:
        """Make calls as long as there are some, and give their room back every few milliseconds."""
        since, made = uptime(), 0
        while call := _next(calls):
            self._hand_on(self._attempt(connection, call, begun))
            made += 1
            now = uptime()
            if now - since >= HAND_ON_EVERY:
                self._returned(connection, made, now - since)
                since, made = now, 0
        if made:
            self._returned(connection, made, uptime() - since)

    def _give_back(self, connection: Connection, calls: deque[Sequence[Claimed]], begun: float) -> None:
        """Have calls that cannot be made now claimed again."""
        while call := _next(calls):
            self._hand_on(self._ends(call, [NotBegun()] * len(call), begun))
            self._returned(connection, 1, connection.pace)

    def _hand_on(self, ended: Sequence[Finished]) -> None:
        """Have these ends recorded."""
        self._ended.update((item.claimed.id, item.claimed.fencing_token) for item in ended)
        self._done.put(ended)

    def _returned(self, connection: Connection, calls: int, seconds: float) -> None:
        """Have the room of so many calls, which took so long, filled again."""
        with self._claim_wake:
            connection.returned(calls, seconds / calls)
            if connection.free:
                self._claim_wake.notify_all()

    def _rulebook(self) -> Rulebook:
        messaging = self._rules.current.messaging

        def agreed(event: Event) -> Truth | None:
            check = consent(event, messaging, self._database.clock.now())
            return check.result if check else None

        return Rulebook(messaging, agreed, self._settings.allowlist, self._settings.erased_as)

    def _attempt(self, connection: Connection, call: Sequence[Claimed], begun: float) -> list[Finished]:
        started = uptime()
        self._begun.update((item.id, item.fencing_token) for item in call)
        if self._too_early(call[0]):
            results: list[Result] = [NotBegun("the database's clock jumped: looked up later", LOOKUP_EVERY)]
        else:
            results = self._attempts.run(connection, call, begun + connection.connector.limits.timeout)
        self._metrics.attempt_seconds.labels(connection.name).observe(uptime() - started)
        return self._ends(call, results, begun)

    def _ends(self, call: Sequence[Claimed], results: Sequence[Result], begun: float) -> list[Finished]:
        now = call[0].started_at + timedelta(seconds=uptime() - begun)
        stopped = self._pulse.stopped_since(begun)
        ends = []
        for claimed, result in zip(call, results, strict=True):
            action = self._action_of(claimed)
            try:
                ends.append(conclude(claimed, action, result, now))
            except Exception as error:  # whatever a connector returned, the attempt has an end
                log.error(
                    "a bug; what came of an attempt cannot be read", delivery=claimed.id, exc_info=error
                )
                unread = OutcomeUnknown(
                    f"{type(error).__name__} while reading the result", reason="internal_error"
                )
                ends.append(conclude(claimed, action, unread, now))
        for end in ends:
            if stopped and end.failure is not None and end.failure.reason in ("timeout", "network"):
                end.speaks_of_partner = False  # it failed by our own doing
        return ends

    def _too_early(self, claimed: Claimed) -> bool:
        """Whether it is a lookup that a jump of the clock made due before the partner can know."""
        action = self._action_of(claimed)
        return (
            claimed.kind == "lookup"
            and action is not None
            and self._evenness.jumped_within(action.lookup_delay)
        )

    def _action_of(self, claimed: Claimed) -> Action | None:
        connection = self._connections.get(claimed.connection)
        return connection.connector.actions.get(claimed.action.partition(".")[2]) if connection else None

    def _tell(self, group: Sequence[Finished]) -> None:
        """Count and log the ends of attempts."""
        counts: Counter[tuple[str, str]] = Counter()
        with logged_together():
            logger = log.bind()
            for ended in group:
                claimed = ended.claimed
                reason = ended.failure.reason if ended.failure else None
                counts[claimed.connection, reason or ended.outcome] += 1
                say = logger.info if ended.state == "succeeded" else logger.warning
                say(
                    "attempt",
                    delivery=claimed.id, rule=claimed.rule, action=claimed.action, kind=claimed.kind,
                    outcome=ended.outcome, state=ended.state, reason=reason, detail=ended.detail or None,
                    recipient=mask_address(claimed.recipient) or None,
                )  # fmt: skip
        for labels, count in counts.items():
            self._metrics.attempts.labels(*labels).inc(count)

    # The recorder

    def _record(self) -> None:
        group: Sequence[Finished] = ()
        while not (self._drained.is_set() and not group and self._done.empty()):
            group = self._write(group or self._next_group())

    def _next_group(self) -> list[Finished]:
        group: list[Finished] = []
        with suppress(queue.Empty):
            group += self._done.get(timeout=0.2)
            self._drained.wait(PAUSE if self._database.crowded else HAND_ON_EVERY)
            most = LITTLE if self._database.brief else MAX_GROUP
            while len(group) < most:
                group += self._done.get_nowait()
        return group

    def _write(self, group: Sequence[Finished], *, bare: bool = False) -> Sequence[Finished]:
        """Record a group, one by one if need be; returns those that are still to be recorded."""
        if not group:
            return ()
        try:
            self._finish(group)
            is_back("recorder")
        except StoreUnavailable as error:
            say_and_wait(error, "recorder", self._drained)
            return () if self._drained.is_set() else group
        except Exception as error:
            if len(group) > 1:
                for place, item in enumerate(group):
                    if self._write([item]):
                        return group[place:]
                return ()
            [item] = group
            log.error(
                "a bug; the end of an attempt is lost"
                if bare
                else "a bug; the end of an attempt is recorded without its words",
                delivery=item.claimed.id,
                outcome=item.outcome,
                exc_info=error,
            )
            if not bare:
                return self._write([_without_words(item)], bare=True)
        self._settled(group)
        return ()

    def _finish(self, group: Sequence[Finished]) -> None:
        for late in finish(self._database, group, self._fingerprint):
            log.warning(
                "an attempt came back after its lease was taken over",
                delivery=late.id,
                fencing_token=late.fencing_token,
            )

    def _fingerprint(self, name: str) -> str:
        return self._connections[name].fingerprint

    def _settled(self, group: Sequence[Finished]) -> None:
        """Tell of ends that are recorded, and forget their claims."""
        self._tell(group)
        with self._claim_wake:
            self._unrecorded -= len(group)
            for item in group:
                self._under_way.pop((item.claimed.id, item.claimed.fencing_token), None)
                self._begun.discard((item.claimed.id, item.claimed.fencing_token))
                self._ended.discard((item.claimed.id, item.claimed.fencing_token))
            self._claim_wake.notify_all()

    # The keeper

    def _keep(self) -> None:
        beat_at = prune_at = 0.0
        while not self._stopping.wait(KEEPER_ROUND):
            with patience("keeper", self._stopping):
                self._rules.reload_if_changed()
                self._take_over()
                if uptime() >= beat_at:
                    beat(self._database, self.worker_id, __version__)
                    beat_at = uptime() + BEAT_EVERY
                if uptime() >= prune_at:
                    portion = prune_portion(self._database, self._settings.retention, self._rules.current)
                    if portion == NOTHING:
                        prune_at = uptime() + PRUNE_EVERY
                    else:
                        log.info("pruned what is older than BRIDGE_RETENTION", **vars(portion))

    def _take_over(self) -> None:
        """Conclude attempts whose process is gone or frozen: their outcome is unknown."""
        begun = uptime()
        found, now = abandoned(self._database, self.worker_id, of=self._connections)
        even_for = self._evenness.read(now, begun)
        if even_for < LEASE.total_seconds() and not self._database.is_sqlite:
            return  # another replica's lease may have run out before its time
        left = [claimed for claimed in found if not self._still_runs(claimed)]
        for claimed in left:
            log.warning(
                "taking over an attempt",
                delivery=claimed.id,
                action=claimed.action,
                fencing_token=claimed.fencing_token,
            )
        if left:
            finish(
                self._database,
                [self._cut_short(claimed, now) for claimed in left],
            )

    def _cut_short(self, claimed: Claimed, now: datetime) -> Finished:
        action, key = self._action_of(claimed), (claimed.id, claimed.fencing_token)
        if (
            key in self._under_way and key not in self._begun
        ):  # it still waits for a thread, and will not begin
            return conclude(claimed, action, NotBegun(), now)
        return cut_short(claimed, action, now)

    def _still_runs(self, claimed: Claimed) -> bool:
        """Whether it is an attempt of this process within its lease, whatever a clock that jumped says.

        Or one whose end only waits for the recorder.
        """
        key = claimed.id, claimed.fencing_token
        begun = self._under_way.get(key)
        return key in self._ended or (begun is not None and uptime() - begun < LEASE.total_seconds())


def _next(calls: deque[Sequence[Claimed]]) -> Sequence[Claimed]:
    """The next call to make, of those that several threads share; nothing when there is none."""
    try:
        return calls.popleft()
    except IndexError:
        return ()


def _without_words(ended: Finished) -> Finished:
    """The same end without what a partner said of it."""
    if ended.failure is not None:
        ended.failure.detail = ""
    return replace(ended, detail="", external_id=None)

"""Steps: the writes of an action that makes several, each of which is recorded so that a later attempt continues there.

A step is recorded as started before its function is called, and with its value afterwards. If an attempt ends in
between, it is unknown whether the step took effect; the next attempt looks up that step alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from bridge.connector.deadline import forget_writes
from bridge.errors import DeliveryError, LookupInconclusive, OutcomeUnknown
from bridge.json_values import replace_unstorable

MAX_STEPS: Final = 50
"""Steps of one delivery, at most."""
MAX_NAME_LENGTH: Final = 100
MAX_VALUE_LENGTH: Final = 500


@dataclass(frozen=True)
class StepRecord:
    """A step that was started."""

    is_finished: bool
    value: str | None = None
    is_own: bool = True
    """False if another delivery with the same idempotency key took it, and then failed."""


class StepStore(Protocol):
    """Where the steps of one delivery are recorded."""

    def load(self) -> Mapping[str, StepRecord]:
        """Return the recorded steps by name."""
        ...

    def start(self, name: str) -> None:
        """Record that a step starts. Raise TransientError if that is not possible, or if this attempt was replaced."""
        ...

    def finish(self, name: str, value: str | None) -> None:
        """Record the value of a step. Raise OutcomeUnknown if that is not possible."""
        ...

    def undo(self, name: str) -> None:
        """Note that a started step certainly did not take effect."""
        ...


@dataclass
class MemorySteps:
    """Steps that are recorded in memory: for tests."""

    records: dict[str, StepRecord] = field(default_factory=dict)

    def load(self) -> Mapping[str, StepRecord]:
        """Return a copy of the records."""
        return dict(self.records)

    def start(self, name: str) -> None:
        """Record a step without a value."""
        self.records[name] = StepRecord(False)

    def finish(self, name: str, value: str | None) -> None:
        """Record a value."""
        self.records[name] = StepRecord(True, value)

    def undo(self, name: str) -> None:
        """Remove the record."""
        del self.records[name]


class Steps:
    """The steps of one attempt.

    If it `resumes`, the outcome of the attempt before it is unknown, and so is that of a step without a value.
    """

    def __init__(self, store: StepStore, *, resumes: bool) -> None:
        self._store = store
        self._resumes = resumes
        self._records: dict[str, StepRecord] | None = None
        self._taken: set[str] = set()

    @classmethod
    def in_memory(cls) -> Self:
        """Return steps that are recorded in memory only."""
        return cls(MemorySteps(), resumes=True)

    def next_attempt(self) -> Steps:
        """Return the steps of the attempt that follows this one."""
        return Steps(self._store, resumes=True)

    @property
    def is_used(self) -> bool:
        """True if the delivery has recorded a step, in this attempt or in an earlier one."""
        return any(record.is_own for record in self._load().values())

    @property
    def was_used(self) -> bool:
        """The same without a query: False if this attempt has not asked for a step."""
        return self._records is not None and self.is_used

    @property
    def is_resolved(self) -> bool:
        """False while it is unknown whether a step of an earlier attempt took effect."""
        return not self._resumes or all(record.is_finished for record in self._load().values())

    @property
    def done(self) -> list[str]:
        """The names of the steps that took effect."""
        return [name for name, record in self._load().items() if record.is_finished]

    def take(
        self,
        name: str,
        function: Callable[[], str | int | None],
        lookup: Callable[[], str | int | None] | None,
    ) -> str | None:
        """Take a step, unless it was taken before; return its value. See `Context.step`."""
        self._check_name(name)
        records = self._load()
        record = records.get(name)
        if record is not None and record.is_finished:
            return record.value
        if record is not None and self._resumes:
            if lookup is None:
                raise LookupInconclusive(
                    f"the step `{name}` of an earlier attempt may have taken effect, and has no lookup"
                )
            found = _value(name, lookup())
            if found is not None:
                return self._finish(name, found)
            del records[name]
        self._store.start(name)
        records[name] = StepRecord(False)
        try:
            value = _value(name, function())
        except DeliveryError as error:
            if not isinstance(error, OutcomeUnknown):
                self._store.undo(name)
                del records[name]
            raise
        return self._finish(name, value)

    def _finish(self, name: str, value: str | None) -> str | None:
        self._store.finish(name, value)
        self._load()[name] = StepRecord(True, value)
        forget_writes()
        return value

    def _load(self) -> dict[str, StepRecord]:
        if self._records is None:
            self._records = dict(self._store.load())
        return self._records

    def _check_name(self, name: str) -> None:
        if not (0 < len(name) <= MAX_NAME_LENGTH and name.isprintable()):
            raise TypeError(f"the name of a step must be 1 to {MAX_NAME_LENGTH} printable characters")
        if name in self._taken:
            raise TypeError(f"the step `{name}` is taken twice in one attempt: each step needs its own name")
        if len(self._taken) >= MAX_STEPS:
            raise TypeError(f"an action may have at most {MAX_STEPS} steps")
        self._taken.add(name)


def _value(name: str, value: object) -> str | None:
    """Return the value of a step as it is stored. Raise TypeError for one that cannot be."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        value = replace_unstorable(value)
    if value is None or (isinstance(value, str) and len(value) <= MAX_VALUE_LENGTH):
        return value
    raise TypeError(
        f"the step `{name}` must return an ID of at most {MAX_VALUE_LENGTH} characters or None, not "
        f"{type(value).__name__}"
    )

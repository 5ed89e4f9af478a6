"""Preview of `bridge resume`: the messages it would send, shown before it asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import typer

from bridge.cli.bulk import POLICY_NOTE
from bridge.cli.output import print_status
from bridge.policy.effects import Effects
from bridge.policy.opt_outs import NOUNS
from bridge.store.database import Database
from bridge.store.waiting import waiting_of_connections


def effects_of_resume(
    database: Database, connections: Collection[str], *, only_messages: bool = False
) -> Effects:
    """Return what waits for these connections, and can leave when they are resumed; or of that, the messages only."""
    sent: Counter[str] = Counter()
    expired = later = 0
    for item in waiting_of_connections(database, connections):
        if only_messages and item.kind not in NOUNS:
            continue
        if item.is_expired:
            expired += item.total
        else:
            sent[item.kind] += item.total
            later += item.total if item.is_later else 0
    return Effects(sent, {"expired": expired} if expired else {}, later=later)


def confirm_resume(database: Database, connections: Collection[str], *, only_messages: bool = False) -> None:
    """If messages wait for these connections, say how many, and ask. Abort if the answer is no."""
    effects = effects_of_resume(database, connections, only_messages=only_messages)
    if effects.messages:
        print_status(f"Waiting: {effects.text}; {POLICY_NOTE}")
        typer.confirm(f"Resume {', '.join(connections)}?", abort=True, err=True)

"""Canonical addresses: writes stored phone numbers and email addresses in the form in which they are compared.

Before, a number was stored as it was written, without punctuation: `+4407911123456` was another person than
`+447911123456`, and an opt-out of one did not stop messages to the other. Rendered params are left as they are; they
become canonical when they are used. Rows are read in portions, and only those that differ are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from bridge.contacts.address import address_key, normalize_address
from bridge.contacts.parse import Contact, parse_contact
from bridge.contacts.phone import PHONE_PATTERN, is_withheld, normalize_phone
from bridge.json_values import parse_body

revision = "0002"
down_revision = "0001"

_PORTION = 1000
_EVENTS = sa.table("events", *map(sa.column, ("id", "phone", "email", "body")))
_DELIVERIES = sa.table(
    "deliveries",
    *map(sa.column, ("id", "recipient", "contact", "concurrency_key", "idempotency_key", "state")),
)
_KEYS = sa.table("idempotency_keys", *map(sa.column, ("key", "reserved_by")))
_OPT_OUTS = sa.table(
    "opt_outs", *map(sa.column, ("channel", "address", "opted_out_at", "source", "changed_at"))
)


def upgrade() -> None:
    """Rewrite the addresses of events, deliveries, idempotency keys and opt-outs."""
    conn = op.get_bind()
    _rewrite_opt_outs(conn)
    _rewrite_events(conn)
    _rewrite_deliveries(conn)
    _rewrite_idempotency_keys(conn)


def _canonical(address: str) -> str:
    """Return an address in canonical form; anything else, such as a placeholder or a hash, as it is."""
    if PHONE_PATTERN.fullmatch(address):
        return normalize_phone(address) or address
    return address_key(address) if "@" in address else address


def _rewrite_events(conn: sa.Connection) -> None:
    other_emails: set[tuple[str, str]] = set()
    for portion in _portions(conn, _EVENTS, "id", ("id", "phone", "email", "body")):
        changes = []
        for row in portion:
            contact = _contact_in(row.body) if _may_be_misread(row) else None
            phone, email = (contact.phone, contact.email) if contact else (row.phone, row.email)
            phone, email = normalize_phone(phone), address_key(email) if email else None
            if (phone, email) != (row.phone, row.email):
                changes.append({"row_id": row.id, "phone": phone, "email": email})
            if email and row.email and email != row.email:
                other_emails.add((row.email, email))
        _write(conn, _EVENTS, changes)
    _copy_opt_outs(conn, other_emails)


def _copy_opt_outs(conn: sa.Connection, other_emails: set[tuple[str, str]]) -> None:
    """Opt out both of two people whose addresses were stored as one, because nobody knows which of them did."""
    entries = {(row.channel, row.address): row._mapping for row in conn.execute(sa.select(_OPT_OUTS))}
    channels = {channel for channel, _ in entries}
    copies = {
        (channel, new): {**entries[channel, old], "address": new}
        for old, new in sorted(other_emails)
        for channel in channels
        if (channel, old) in entries
        and (channel, new) not in entries
        and entries[channel, old]["opted_out_at"] is not None
    }
    if copies:
        conn.execute(sa.insert(_OPT_OUTS), list(copies.values()))


def _may_be_misread(row: sa.Row[Any]) -> bool:
    """Return whether the body may say more than the columns: a phone that was not understood, a folded email."""
    if row.body is None:
        return False
    body = bytes(row.body)
    is_phone_missing = row.phone is None and (b'hone"' in body or b"\\u" in body)
    return is_phone_missing or (row.email is not None and (not body.isascii() or b"\\u" in body))


def _contact_in(body: bytes) -> Contact | None:
    try:
        return parse_contact(parse_body(bytes(body))).contact
    except ValueError:
        return None


def _rewrite_deliveries(conn: sa.Connection) -> None:
    """A running delivery keeps its keys, because two that get the same one must not run at the same time."""
    columns = ("recipient", "contact", "concurrency_key", "idempotency_key")
    for portion in _portions(conn, _DELIVERIES, "id", ("id", "state", *columns)):
        changes = []
        for row in portion:
            new = {
                "recipient": row.recipient and _canonical(row.recipient),
                "contact": None if is_withheld(row.contact) else row.contact and _canonical(row.contact),
                "concurrency_key": row.concurrency_key,
                "idempotency_key": row.idempotency_key,
            }
            if row.state != "running":
                new["concurrency_key"] = _concurrency_key(row.concurrency_key)
                new["idempotency_key"] = _idempotency_key(row.idempotency_key)
            if new != {name: getattr(row, name) for name in columns}:
                changes.append({"row_id": row.id, **new})
        _write(conn, _DELIVERIES, changes)


def _concurrency_key(key: str | None) -> str | None:
    """Rewrite `CONNECTION|ADDRESS`."""
    connection, separator, target = (key or "").partition("|")
    return connection + separator + _canonical(target) if separator else key


def _idempotency_key(key: str) -> str:
    """Rewrite the recipient in `message|ACTION|EVENT|RECIPIENT|KEY`, so that a replay does not send it again."""
    parts = key.split("|")
    if parts[0] != "message":
        return key
    for index, part in enumerate(parts[3:], start=3):
        if PHONE_PATTERN.fullmatch(part) or (index == 3 and "@" in part):
            parts[index] = normalize_address(part) or part
            break
    return "|".join(parts)


def _rewrite_idempotency_keys(conn: sa.Connection) -> None:
    """If both forms of a key exist, the message was sent in both, and they stay."""
    running = set(conn.execute(sa.select(_DELIVERIES.c.id).where(_DELIVERIES.c.state == "running")).scalars())
    for portion in _portions(conn, _KEYS, "key", ("key", "reserved_by")):
        new_keys = {
            new_key: row.key
            for row in portion
            if (new_key := _idempotency_key(row.key)) != row.key and row.reserved_by not in running
        }
        taken = conn.execute(sa.select(_KEYS.c.key).where(_KEYS.c.key.in_(new_keys))).scalars().all()
        changes = [
            {"row_id": old_key, "key": new_key}
            for new_key, old_key in new_keys.items()
            if new_key not in taken
        ]
        _write(conn, _KEYS, changes, "key")


def _rewrite_opt_outs(conn: sa.Connection) -> None:
    """The newest change of a person decides; at the same instant, the opt-out does."""
    rows = conn.execute(sa.select(_OPT_OUTS)).all()
    groups: dict[tuple[str, str], list[sa.Row[Any]]] = {}
    for row in rows:
        groups.setdefault((row.channel, _canonical(row.address)), []).append(row)
    for (channel, address), group in groups.items():
        if [row.address for row in group] == [address]:
            continue
        newest = max(group, key=lambda row: (row.changed_at, row.opted_out_at is not None))
        old = [row.address for row in group]
        conn.execute(sa.delete(_OPT_OUTS).where(_OPT_OUTS.c.channel == channel, _OPT_OUTS.c.address.in_(old)))
        conn.execute(sa.insert(_OPT_OUTS).values({**newest._mapping, "address": address}))


def _portions(
    conn: sa.Connection, table: sa.TableClause, key: str, columns: Sequence[str]
) -> Iterator[Sequence[sa.Row[Any]]]:
    """Yield all rows of a table in portions, in the order of their key."""
    query = sa.select(*(table.c[name] for name in columns)).order_by(table.c[key]).limit(_PORTION)
    portion = conn.execute(query).all()
    while portion:
        yield portion
        portion = conn.execute(query.where(table.c[key] > getattr(portion[-1], key))).all()


def _write(
    conn: sa.Connection, table: sa.TableClause, changes: Sequence[dict[str, Any]], key: str = "id"
) -> None:
    """Update rows. Each change has the new values by column, and `row_id`."""
    if changes:
        values: dict[str, Any] = {name: sa.bindparam(name) for name in changes[0] if name != "row_id"}
        conn.execute(
            sa.update(table).where(table.c[key] == sa.bindparam("row_id")).values(values), list(changes)
        )

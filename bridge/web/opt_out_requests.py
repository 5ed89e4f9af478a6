"""Opt-outs through the API: one address or many per request, with an error for each that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge.contacts.typed_address import InvalidAddress, read_typed_address
from bridge.policy import channels_of
from bridge.store.database import Database
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.web.query_params import InvalidParameter, string_or_none

MAX_ITEMS: Final = 500
FIELDS: Final = ("address", "channel", "reason", "items")
"""Fields of a request: those of one address, or `items` with a list of them."""
_ITEM_FIELDS: Final = ("address", "channel", "reason")


def change_opt_outs(
    database: Database, body: Mapping[str, Any], actor: str, *, opted_out: bool
) -> tuple[int, Mapping[str, Any]]:
    """Add or remove the opt-outs in a request; return the HTTP status and the response.

    Without `channel`, every channel of the address changes. Valid items are stored although others are invalid: the
    response has one entry per change in `items` and one per invalid item in `errors`; 400 if all are invalid. Raise
    InvalidParameter for a request without addresses.
    """
    changes: list[OptOutChange] = []
    errors: list[dict[str, Any]] = []
    for index, item in enumerate(_items(body)):
        try:
            changes += _changes(item, actor, database.default_country, opted_out=opted_out)
        except InvalidParameter as error:
            errors.append({"index": index, "error": str(error)})
    if errors and not changes:
        return 400, {"error": errors[0]["error"], "errors": errors}
    changed = save_opt_out(database, *changes)
    items = [
        {
            "channel": change.channel,
            "address": change.address,
            "opted_out": change.opted_out,
            "changed": change.key in changed,
        }
        for change in changes
    ]
    return 200, {"items": items, "errors": errors}


def _items(body: Mapping[str, Any]) -> list[Any]:
    if "items" not in body:
        return [body]
    items = body["items"]
    if len(body) > 1 or not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
        raise InvalidParameter(
            f'send one address as `{{"address": ...}}`, or 1 to {MAX_ITEMS} as `{{"items": [{{"address": ...}}]}}`'
        )
    return items


def _changes(item: Any, actor: str, country: str | None, *, opted_out: bool) -> list[OptOutChange]:
    if not isinstance(item, dict) or not item.keys() <= set(_ITEM_FIELDS):
        raise InvalidParameter(f"an item must be an object with {', '.join(_ITEM_FIELDS)}")
    text = string_or_none("address", item.get("address"))
    channel = string_or_none("channel", item.get("channel"))
    reason = string_or_none("reason", item.get("reason"))
    if text is None:
        raise InvalidParameter("`address` is missing: send a phone number or an email address")
    try:
        address = read_typed_address(text, country, allow_impossible=not opted_out)
    except InvalidAddress as error:
        raise InvalidParameter(f"`address` {error}") from None
    allowed = channels_of(address)
    channels = [name for name in allowed if channel in (None, name)]
    if not channels:
        raise InvalidParameter(f"`channel` must be one of {', '.join(allowed)} for this address")
    return [OptOutChange(name, address, opted_out, "API", actor, reason) for name in channels]

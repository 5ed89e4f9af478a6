"""Opt-outs: the list, and changing one address or many per request, with an error for each that cannot be read."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, SkipValidation
from typing_extensions import TypedDict

from bridge.connector import Channel
from bridge.contacts.typed_address import InvalidAddress, read_typed_address
from bridge.errors import ConfigError
from bridge.policy import channels_of
from bridge.store.opt_out_import import import_csv
from bridge.store.opt_out_list import EntryKind, list_opt_outs
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.web.api.endpoint import ApiError, Call, Resource
from bridge.web.api.records import ItemError, PageOf, record
from bridge.web.query_params import Address, OptOutListQuery, Text
from bridge.web.validation import InvalidParameter, Parameters, read_fields

MAX_ITEMS: Final = 500
_OMITTED: Any = None
"""Default of a field that may be missing, but not null."""
MAX_IMPORT: Final = 1024 * 1024
"""Bytes of a list that is imported; `bridge opt-outs import` takes any size."""
OPT_OUTS = Resource(
    "Opt-outs", "Who wants no messages on which channel, and which addresses are undeliverable."
)


class OptOutItem(Parameters):
    """An address, and the channel on which it wants no messages."""

    address: Address = Field(description="A phone number or an email address.", examples=["+12125550167"])
    channel: Channel | None = Field(
        None, description="One channel; without it, every channel of the address."
    )
    reason: Text | None = Field(None, description="Why, for the audit log.")


class OptOuts(Parameters):
    """One address, or up to 500 of them in `items`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["address"], "not": {"required": ["items"]}},
                {
                    "required": ["items"],
                    "not": {"required": ["address"]},
                    "properties": {"channel": {"type": "null"}, "reason": {"type": "null"}},
                },
            ]
        }
    )

    address: Address = Field(
        _OMITTED, description="A phone number or an email address.", examples=["+12125550167"]
    )
    channel: Channel | None = Field(
        None, description="One channel; without it, every channel of the address."
    )
    reason: Text | None = Field(None, description="Why, for the audit log.")
    items: Annotated[list[SkipValidation[OptOutItem]], Field(min_length=1, max_length=MAX_ITEMS)] = Field(
        _OMITTED, description="Several addresses, each with its channel and reason."
    )


class OptOutImport(Parameters):
    """A list of addresses."""

    text: Annotated[str, Field(min_length=1)] = Field(
        description="CSV with the columns `address` and, optionally, `channel` and `reason`.",
        examples=["address,reason\n+12125550167,asked by phone\n"],
    )
    reason: Text | None = Field(None, description="Reason of the lines that have none.")
    dry_run: bool = Field(False, description="Only report what would change.")


@record()
class ImportProblem(TypedDict):
    """A line that cannot be read."""

    line: int
    problem: str


@record()
class ImportResult(TypedDict):
    """What an import did, or would do."""

    dry_run: bool
    added: int
    """Lines with an address that was not opted out before."""
    already_opted_out: int
    skipped: int
    """Lines of an export that cannot be imported: erased and undeliverable addresses."""
    unreadable: int
    problems: list[ImportProblem]
    """The first 1,000 lines that cannot be read."""


@record()
class OptOutListEntry(TypedDict):
    """An entry of the opt-out list."""

    id: str
    kind: EntryKind
    channel: Channel
    address: str
    """The address; of an erased contact, `erased:` and a hash."""
    since: datetime
    until: datetime | None
    """When an undeliverable address is tried again. Null for an opt-out."""
    source: str
    actor: str | None
    """The operator who entered it. Null if it comes from the recipient or a provider."""
    reason: str | None
    """The operator's reason, or what the provider reported about an undeliverable address."""


@record()
class ChangedOptOut(TypedDict):
    """The opt-out of one address on one channel after the request."""

    channel: Channel
    address: str
    """The address as it is stored."""
    opted_out: bool
    changed: bool
    """False if it was so before."""


@record()
class ChangedOptOuts(TypedDict):
    """The opt-outs after the request, and the items that are invalid."""

    items: list[ChangedOptOut]
    errors: list[ItemError]


@OPT_OUTS.get("/opt-outs", response=PageOf[OptOutListEntry])
def list_all_opt_outs(call: Call, query: OptOutListQuery) -> Any:
    """List opt-outs and undeliverable addresses, newest first."""
    return list_opt_outs(call.database, **query.arguments(call.database.clock.now()))


@OPT_OUTS.post("/opt-outs", response=ChangedOptOuts)
def add_opt_outs(call: Call, body: OptOuts) -> Any:
    """Opt out one address, or up to 500 in `items`.

    Valid items are stored although others are invalid: `errors` says which. If all are invalid, the status is 400.
    """
    return _change(call, body, opted_out=True)


@OPT_OUTS.delete("/opt-outs", response=ChangedOptOuts)
def remove_opt_outs(call: Call, body: OptOuts) -> Any:
    """Remove the opt-out of one address or several, or clear an undeliverable one."""
    return _change(call, body, opted_out=False)


@OPT_OUTS.post("/opt-outs/import", response=ImportResult, max_body=MAX_IMPORT)
def import_opt_outs(call: Call, body: OptOutImport) -> Any:
    """Import a list of addresses that want no messages, as `bridge opt-outs import` does."""
    try:
        return import_csv(
            call.database,
            io.BufferedReader(io.BytesIO(body.text.encode())),
            call.actor,
            name="API",
            reason=body.reason,
            dry_run=body.dry_run,
        )
    except ConfigError as error:
        raise InvalidParameter(str(error)) from None


def _change(call: Call, body: OptOuts, *, opted_out: bool) -> Mapping[str, Any]:
    """Store the changes of the valid items; raise ApiError or InvalidParameter if there are none."""
    changes: list[OptOutChange] = []
    errors: list[dict[str, Any]] = []
    for index, item in enumerate(_items(body)):
        try:
            changes += _changes(item, call.actor, call.database.default_country, opted_out=opted_out)
        except InvalidParameter as error:
            errors.append({"index": index, "error": str(error)})
    if errors and not changes:
        raise ApiError(400, errors[0]["error"], errors=errors)
    changed = save_opt_out(call.database, *changes)
    items = [
        {
            "channel": change.channel,
            "address": change.address,
            "opted_out": change.opted_out,
            "changed": change.key in changed,
        }
        for change in changes
    ]
    return {"items": items, "errors": errors}


def _items(body: OptOuts) -> Sequence[Any]:
    given = {name: value for name, value in body if value is not None}
    if body.items is None:
        return [given]
    if len(given) > 1:
        raise InvalidParameter(
            f'send one address as `{{"address": ...}}`, or 1 to {MAX_ITEMS} as `{{"items": [{{"address": ...}}]}}`'
        )
    return body.items


def _changes(item: Any, actor: str, country: str | None, *, opted_out: bool) -> list[OptOutChange]:
    if not isinstance(item, Mapping):
        raise InvalidParameter(f"an item must be an object with {', '.join(OptOutItem.model_fields)}")
    entry = read_fields(OptOutItem, item)
    try:
        address = read_typed_address(entry.address, country, allow_impossible=not opted_out)
    except InvalidAddress as error:
        raise InvalidParameter(f"`address` {error}") from None
    allowed = channels_of(address)
    channels = [name for name in allowed if entry.channel in (None, name)]
    if not channels:
        raise InvalidParameter(f"`channel` must be one of {', '.join(allowed)} for this address")
    return [OptOutChange(name, address, opted_out, "API", actor, entry.reason) for name in channels]

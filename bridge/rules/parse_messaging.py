"""Parser of `messaging`: the policy for every text message, email and call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args

from bridge.area_codes import known_regions
from bridge.connector.callbacks import Channel
from bridge.contacts.time_zone import normalize_time_zone, residence_time_zone
from bridge.errors import BridgeError
from bridge.rules.keys import CONDITION, STRING, Entries, Key, Section, ValueType
from bridge.rules.model import Cap, MessagingPolicy, OptOutScope
from bridge.rules.parse_context import ParseContext, quote_value
from bridge.rules.parse_quiet_hours import is_always_quiet, read_quiet_hours, read_region_hours
from bridge.rules.quiet_hours import CHANNELS, QuietHours
from bridge.rules.yaml import Node
from bridge.setting_types import parse_duration
from bridge.spelling import did_you_mean

_CAP = re.compile(r"([1-9]\d{0,4})\s+per\s+(\S+)", re.ASCII)
_COUNTRY_ALIASES = {"USA": "US", "UK": "GB", "UNITED STATES": "US", "UNITED KINGDOM": "GB", "CANADA": "CA"} | {
    "CAN": "CA", "GBR": "GB", "MEX": "MX", "DEU": "DE", "GER": "DE", "FRA": "FR", "ESP": "ES", "AUS": "AU", "FIN": "FI"
}  # fmt: skip
"""Other name of a country -> its code."""
_REGION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", re.ASCII)


def read_messaging(context: ParseContext, node: Node, _label: str) -> MessagingPolicy | None:
    """Return the policy of the file. Keys that it does not set keep their defaults."""
    entries = MESSAGING.open(context, node)
    if entries is None:
        return None
    values, defaults = MESSAGING.read(context, entries), MessagingPolicy()
    _check_regions(
        context, entries, values.get("quiet_hours", defaults.quiet_hours), values.get("regions", {})
    )
    caps = values.pop("caps", {})
    total_caps = caps.pop("total", {})
    return MessagingPolicy(
        caps={**defaults.caps, **caps}, total_caps={**defaults.total_caps, **total_caps}, **values
    )


def _time_zone(context: ParseContext, node: Node, label: str) -> str | None:
    zone = context.string(node, label)
    if zone is None:
        return None
    residence = residence_time_zone(zone)
    if residence is None:
        hint = "write a name such as `America/New_York` or `Europe/Berlin`"
        exists = normalize_time_zone(zone) is not None
        problem = f"`{zone}` is not the time zone of a place, so messages would be sent at night"
        context.error(node, problem if exists else f"no time zone `{zone[:60]}`", hint)
    return residence


def _consent(context: ParseContext, node: Node, label: str) -> str | None:
    compiled = context.condition(node, label)
    if compiled is not None and compiled.counts:
        context.error(
            context.locate(node, "count"), "`count` is not available in `consent`", "use it in a rule"
        )
        return None
    return compiled.source if compiled else None


def _opt_out_scope(context: ParseContext, node: Node, label: str) -> OptOutScope | None:
    scope = _OPT_OUT_SCOPES.get(node.value) if isinstance(node.value, str) else None
    if scope is None:
        text = f"{label} must be `phone`, `channel` or `all`, not {quote_value(node.value)}"
        context.error(node, text, "`phone`: an opt-out of text messages, WhatsApp or calls covers all three")
    elif scope == "channel":
        text = "an opt-out of text messages does not cover calls and WhatsApp messages"
        context.warning(
            node, text, "US law requires that it does (47 CFR 64.1200(a)(10)); the default is `phone`"
        )
    return scope


def _regions(context: ParseContext, node: Node, label: str) -> dict[str, Mapping[Channel, QuietHours]]:
    regions: dict[str, Mapping[Channel, QuietHours]] = {}
    for name, (key, value) in context.mapping(node, label).items():
        if not _REGION.fullmatch(name):
            hint = "write a country or a part of it: `US`, `US-FL`"
            context.error(key, f"invalid region `{name[:40]}`", hint)
            continue
        if name not in known_regions():
            hint = (
                did_you_mean(name, sorted(known_regions()))
                or "remove it: no phone number is known to belong to this region, so it has no effect"
            )
            context.error(key, f"no region `{name}`", hint)
            continue
        hours = read_region_hours(context, value, name)
        if hours is not None:
            regions[name] = hours
    return regions


def _check_regions(
    context: ParseContext,
    entries: Entries,
    general: Mapping[Channel, QuietHours],
    regions: Mapping[str, Mapping[Channel, QuietHours]],
) -> None:
    """Report the regions whose quiet hours, together with the general ones, leave no time for a message."""
    for region, hours in regions.items():
        closed = [
            channel
            for channel in CHANNELS
            if is_always_quiet([general[channel], hours[channel]])
            and not is_always_quiet([general[channel]])
            and not is_always_quiet([hours[channel]])
        ]
        if closed:
            node = (entries["regions"][1].entries or {})[region][1]
            text = f"no message could ever be sent to {region} by {' or '.join(closed)}"
            context.error(node, text, "`quiet_hours` and these hours together cover the whole week")


def _countries(context: ParseContext, node: Node, label: str) -> frozenset[str]:
    from phonenumbers import SUPPORTED_REGIONS

    countries = set()
    for item in context.list_items(node, label, allow_single=True):
        country = context.string(item, label)
        if country in SUPPORTED_REGIONS:
            countries.add(country)
        elif country is not None:
            code = _COUNTRY_ALIASES.get(country.upper().replace(".", ""), country.upper())
            known = code in SUPPORTED_REGIONS
            hint = f"did you mean `{code}`?" if known else "write codes of two letters (ISO 3166): `[US, CA]`"
            context.error(item, f"no country `{country[:40]}`", hint)
    return frozenset(countries)


def _caps(context: ParseContext, node: Node, _label: str) -> Mapping[str, Any]:
    return CAPS.read(context, CAPS.open(context, node) or {})


def _total_caps(context: ParseContext, node: Node, _label: str) -> Mapping[str, Cap]:
    return TOTAL_CAPS.read(context, TOTAL_CAPS.open(context, node) or {})


def _cap(context: ParseContext, node: Node, label: str) -> Cap | None:
    match = _CAP.fullmatch(node.value.strip()) if isinstance(node.value, str) else None
    try:
        per = parse_duration(match[2]) if match else None
    except ValueError:
        per = None
    if match is None or not per:
        hint = "write a count and a duration, such as `2 per 24h`"
        context.error(node, f"invalid cap for {label}: {quote_value(node.value)}", hint)
        return None
    return Cap(int(match[1]), per)


def _crm_opt_outs(context: ParseContext, node: Node, label: str) -> dict[str, str]:
    """Return the connections whose CRM is asked, with their connectors."""
    crms: dict[str, str] = {}
    for item in context.list_items(node, label, allow_single=True):
        name = context.string(item, label)
        if name is None:
            continue
        connector = name if name in context.registry.names() else context.connections.get(name)
        if connector is None:
            context.error(item, f"no connection `{name[:60]}`", did_you_mean(name, _crm_connections(context)))
            continue
        try:
            is_crm = context.registry.connector(connector).read_opt_out_flags is not None
        except BridgeError as error:
            context.error(item, f"the connector `{connector}` cannot be loaded: {error}")
            continue
        if not is_crm:
            hint = did_you_mean(name, _crm_connections(context))
            context.error(item, f"the connector `{connector}` has no opt-out flags", hint)
            continue
        crms[name] = connector
        context.connections.setdefault(name, connector)
        context.check_settings(item, connector, name)
    return crms


def _crm_connections(context: ParseContext) -> list[str]:
    """Return the connections that could be named: those whose connector has opt-out flags."""
    connectors = {name: name for name in context.registry.names()} | context.connections
    names = []
    for name, connector in sorted(connectors.items()):
        with suppress(KeyError, BridgeError):
            if context.registry.connector(connector).read_opt_out_flags is not None:
                names.append(name)
    return names


_OPT_OUT_SCOPES: Mapping[str, OptOutScope] = {scope: scope for scope in get_args(OptOutScope)}
_CAP_TYPE = ValueType(_cap, {"type": "string", "pattern": r"^\s*[1-9]\d{0,4}\s+per\s+\S+\s*$"})

TOTAL_CAPS = Section(
    "`total`",
    hint="",
    keys=(
        Key("sms", _CAP_TYPE, "text messages of a connection", default="500 per 1h"),
        Key("whatsapp", _CAP_TYPE, "WhatsApp messages of a connection", default="500 per 1h"),
        Key("email", _CAP_TYPE, "emails of a connection", default="500 per 1h"),
        Key("call", _CAP_TYPE, "calls of a connection", default="200 per 1h"),
    ),
)
CAPS = Section(
    "`caps`",
    hint="",
    keys=(
        Key("sms", _CAP_TYPE, "text messages per phone number", default="2 per 24h"),
        Key("whatsapp", _CAP_TYPE, "WhatsApp messages per phone number", default="2 per 24h"),
        Key("email", _CAP_TYPE, "emails per address", default="2 per 7d"),
        Key("call", _CAP_TYPE, "calls per phone number", default="3 per 24h"),
        Key(
            "total",
            ValueType(_total_caps, {"$ref": "#/$defs/total_caps"}),
            "messages of a connection to all recipients together; one more pauses the connection",
            example="{sms: 100 per 1h}",
            default="{sms: 500 per 1h, whatsapp: 500 per 1h, email: 500 per 1h, call: 200 per 1h}",
        ),
    ),
)
MESSAGING = Section(
    "`messaging`",
    hint="",
    keys=(
        Key(
            "quiet_hours",
            ValueType(read_quiet_hours, {"$ref": "#/$defs/quiet_hours"}),
            "no messages between these times in the recipient's time zone, every day or by "
            "[channel and day](#quiet-hours); `none` turns this off",
            default='"20:00-08:00"',
            example='{sms: {mon-fri: "17:00-09:00", sat-sun: all day, holidays: all day}}',
        ),
        Key(
            "regions",
            ValueType(_regions, {"type": "object", "additionalProperties": {"$ref": "#/$defs/quiet_hours"}}),
            "stricter quiet hours for certain regions",
            example='{US-FL: "20:00-08:00"}',
        ),
        Key(
            "caps",
            ValueType(_caps, {"$ref": "#/$defs/caps"}),
            "maximum number of messages per channel: to one address, and to [all together](#caps)",
            example="{sms: 1 per 24h, total: {sms: 100 per 1h}}",
        ),
        Key(
            "countries",
            ValueType(
                _countries, {"type": ["array", "string"], "items": STRING.schema, "examples": [["US", "CA"]]}
            ),
            "the only countries to text and call, by phone number, as ISO 3166 codes",
            example="[US, CA]",
        ),
        Key(
            "time_zone",
            ValueType(_time_zone, STRING.schema),
            "the time zone to use if the recipient's country is unknown",
            default="America/New_York",
        ),
        Key(
            "opt_out_scope",
            ValueType(_opt_out_scope, {"enum": list(_OPT_OUT_SCOPES)}),
            "how far an [opt-out](rules.md#opt-outs) reaches: `phone` extends one of `sms`, `whatsapp` or `call` to "
            "all three, `channel` keeps it to its channel, `all` extends it to every channel",
            default="phone",
        ),
        Key(
            "crm_opt_outs",
            ValueType(_crm_opt_outs, {"type": "array", "items": STRING.schema}),
            "connections of CRMs that are asked before each message whether the contact has "
            "[opted out](rules.md#opt-out-flags-of-a-crm)",
            example="[hubspot, salesforce]",
        ),
        Key(
            "consent",
            ValueType(_consent, CONDITION.schema),
            "an [expression](#expressions) that must be true for every message; otherwise it is suppressed as "
            "`no_consent`, now and not later",
            example="event.metadata.consent == true",
        ),
    ),
)

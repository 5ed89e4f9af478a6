"""Report of a reload: its audit entry, and which deliveries wait as earlier versions of the rules created them."""

from __future__ import annotations

import threading

from bridge.errors import StoreUnavailable
from bridge.rules.model import Rules
from bridge.store.audit_log import BRIDGE, record_audit
from bridge.store.database import Database
from bridge.store.rule_deliveries import earlier_deliveries
from bridge.telemetry import log

MAX_LINES = 20
"""Rules that one report names."""


def report_reload(database: Database, rules: Rules) -> threading.Thread:
    """Record the reload and log the deliveries that these rules leave behind, in a thread: the reload does not wait."""
    thread = threading.Thread(
        target=_report, args=[database, rules], name="bridge-reload-report", daemon=True
    )
    thread.start()
    return thread


def _report(database: Database, rules: Rules) -> None:
    try:
        with database.write() as conn:
            detail = {"rules": len(rules.rules)}
            record_audit(conn, database.now(conn), BRIDGE, "reload_rules", [rules.hash[:12]], detail)
        found = earlier_deliveries(database, rules)
    except StoreUnavailable as error:
        log.warning("waiting deliveries not counted after the reload", error=str(error))
        return
    for item in found[:MAX_LINES]:
        log.warning(
            "deliveries of a changed rule wait", rule=item.rule, change=item.change, waiting=item.waiting,
            next_at=item.next_at.isoformat(), message=item.message, advice=item.advice,
        )  # fmt: skip
    if len(found) > MAX_LINES:
        log.warning(
            "deliveries of more rules wait and will be sent as before",
            rules=len(found) - MAX_LINES,
            advice="`bridge check --deployed` lists them all",
        )

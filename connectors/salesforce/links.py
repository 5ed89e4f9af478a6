"""Links to Salesforce: the page of a record, and where to look for one that may not exist."""

from __future__ import annotations

import re

from bridge.connector import ProviderRecord, UncertainDelivery, WhereToLook

from .settings import ID_PATTERN, Settings, connector


@connector.record_url
def record_url(settings: Settings, record: ProviderRecord) -> str | None:
    """Return the page of a record: the org's address with the ID, which Salesforce turns into the right page."""
    if not re.fullmatch(ID_PATTERN, record.external_id):
        return None
    return f"{str(settings.url).rstrip('/')}/{record.external_id}"


@connector.where_to_look
def where_to_look(settings: Settings, delivery: UncertainDelivery) -> WhereToLook:
    """Return the query that finds the Task, Event or case of the conversation."""
    if "campaign" in delivery.action:
        return WhereToLook("Open the campaign in Salesforce: the person is among its members.")
    is_event = delivery.action == "create_event"
    table, field = ("Event" if is_event else "Task", settings.task_field)
    if "case" in delivery.action:
        table, field = ("Case", settings.case_field)
    key = (delivery.conversation or "").replace("'", "")
    key = f"event:{key}" if is_event and key else key
    if not key:
        return WhereToLook(f"Search for the {table} in Salesforce.")
    query = f"SELECT Id, Subject, CreatedDate FROM {table} WHERE {field} = '{key}'"  # noqa: S608  (shown, not run)
    return WhereToLook(f"Run this query in Salesforce's Developer Console: {query}")

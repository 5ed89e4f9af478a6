"""Checks of the loaded rules against an org: permissions, fields, picklist values, record types and owners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bridge.connector import CONTACT_OWNER, ActionUse, RuleProblem
from bridge.errors import AccountError

from .account_errors import PERMISSION_SET
from .field_checks import check_value, find_described, required_fields
from .match_fields import MATCH_FIELDS, OPTIONAL_FIELDS
from .org import CALL_FLAG, EMAIL_FLAG, Org
from .permissions import read_needs
from .settings import connector
from .setup import external_id_problem, has_field
from .soql import select

_PEOPLE = ("Contact", "Lead")
_OWN_FIELDS: Mapping[str, Sequence[str]] = {
    "Contact": ("FirstName", "LastName", "Email", "Phone"),
    "Lead": ("FirstName", "LastName", "Email", "Phone", "Company"),
    "Task": ("Subject", "Description", "Status", "ActivityDate", "Priority", "OwnerId", "WhoId", "WhatId"),
    "Event": (
        "Subject",
        "Description",
        "Location",
        "StartDateTime",
        "EndDateTime",
        "ShowAs",
        "OwnerId",
        "WhoId",
        "WhatId",
    ),
    "Campaign": ("Name", "IsActive"),
    "CampaignMember": ("CampaignId", "ContactId", "LeadId", "Status"),
    "Case": (
        "Subject",
        "Description",
        "Status",
        "ContactId",
        "SuppliedName",
        "SuppliedEmail",
        "SuppliedPhone",
        "SuppliedCompany",
    ),
}
"""Fields that the bridge reads and writes by itself."""
_FIELD_PARAMS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "log_call": {"properties": ("Task",), "new_contact": _PEOPLE},
    "log_chat": {"properties": ("Task",), "new_contact": _PEOPLE},
    "log_message": {"new_contact": _PEOPLE},
    "create_task": {"properties": ("Task",), "new_contact": _PEOPLE},
    "create_event": {"properties": ("Event",), "new_contact": _PEOPLE},
    "add_to_campaign": {"properties": ("CampaignMember",), "new_contact": _PEOPLE},
    "update_campaign_member": {"properties": ("CampaignMember",)},
    "upsert_contact": {"properties": _PEOPLE, "new_contact": _PEOPLE},
    "update_lead": {"properties": ("Lead",)},
    "create_case": {"properties": ("Case",)},
    "close_case": {"properties": ("Case",)},
}
"""Action -> the params that set fields, and the object types that may have the field."""
_VALUE_PARAMS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "create_task": {"priority": ("Task", "Priority"), "lead_source": ("Lead", "LeadSource")},
    "log_call": {"call_type": ("Task", "Type"), "lead_source": ("Lead", "LeadSource")},
    "log_chat": {"chat_type": ("Task", "Type"), "lead_source": ("Lead", "LeadSource")},
    "log_message": {"message_type": ("Task", "Type"), "lead_source": ("Lead", "LeadSource")},
    "create_event": {
        "event_type": ("Event", "Type"),
        "show_as": ("Event", "ShowAs"),
        "lead_source": ("Lead", "LeadSource"),
    },
    "add_to_campaign": {"lead_source": ("Lead", "LeadSource")},
    "upsert_contact": {"lead_source": ("Lead", "LeadSource")},
    "update_lead": {"status": ("Lead", "Status")},
    "create_case": {
        "status": ("Case", "Status"),
        "priority": ("Case", "Priority"),
        "origin": ("Case", "Origin"),
    },
    "close_case": {"status": ("Case", "Status")},
}
"""Action -> the params that are the value of one field."""
_OPTIONAL_FIELDS = ("Type", "LeadSource")
"""Fields that the bridge leaves out if the org's picklist does not have the value."""
_QUEUE_OWNED = ("create_case", "upsert_contact")
"""Actions whose records a queue may own."""
_LOGS = {"log_call", "log_chat", "log_message", "create_task", "create_event"}
"""Actions that write a Task or Event; that they complete the contact or lead as well is optional."""
_UPDATES = ("update_lead", "close_case", "update_campaign_member")
"""Actions that create no record."""
_FLAGS = {"create": "createable", "edit": "updateable"}


@connector.check_rules
def check_rules(org: Org, uses: Sequence[ActionUse]) -> list[RuleProblem]:
    """Find what the org would refuse. The description of each object type that the rules write takes one request."""
    descriptions = _descriptions(org, uses)
    return [
        *_permission_problems(descriptions, uses),
        *_hidden_field_problems(descriptions),
        *_external_id_problems(org, descriptions, uses),
        *_field_problems(descriptions, uses),
        *_required_field_problems(descriptions, uses),
        *_flag_problems(descriptions, uses),
        *_open_status_problems(org, uses),
        *_owner_problems(org, uses),
        *_campaign_problems(org, descriptions, uses),
    ]


def _descriptions(org: Org, uses: Sequence[ActionUse]) -> dict[str, Mapping[str, Any] | None]:
    """Return Salesforce's description of each object type that the actions need; None if it is hidden."""
    descriptions: dict[str, Mapping[str, Any] | None] = {}
    for use in uses:
        for object_type in read_needs(use.action.needs):
            if object_type not in descriptions:
                try:
                    descriptions[object_type] = org.describe(object_type)
                except AccountError:
                    descriptions[object_type] = None
    return descriptions


def _permission_problems(
    descriptions: Mapping[str, Mapping[str, Any] | None], uses: Sequence[ActionUse]
) -> Iterator[RuleProblem]:
    for object_type, description in descriptions.items():
        missing: dict[str, list[str]] = {}
        for use in uses:
            for access in _access(use).get(object_type, ()):
                is_granted = description is not None and description.get(_FLAGS.get(access, ""), True)
                if not is_granted and use.action.name not in missing.setdefault(access, []):
                    missing[access].append(use.action.name)
        if missing := {access: actions for access, actions in missing.items() if actions}:
            names = " and ".join(access.capitalize() for access in missing)
            actions = dict.fromkeys(action for names_ in missing.values() for action in names_)
            # Contacts and leads are only completed; their calls are logged anyway.
            is_optional = object_type in _PEOPLE and missing.keys() == {"edit"} and actions.keys() <= _LOGS
            yield RuleProblem(
                f"the integration user has no {names} access to {object_type} (for {', '.join(actions)}): grant it "
                f"under Object Settings in {PERMISSION_SET}",
                level="warning" if is_optional else "error",
            )


def _access(use: ActionUse) -> Mapping[str, Sequence[str]]:
    """Return what the action needs. By `on_missing`, it creates contacts, or no leads."""
    access = dict(read_needs(use.action.needs))
    on_missing = use.params.get("on_missing")
    if on_missing == "contact":
        access["Contact"] = ("read", "create", "edit")
    if on_missing == "skip" and "Lead" in access:
        access["Lead"] = ("read", "edit")
    return access


def _hidden_field_problems(descriptions: Mapping[str, Mapping[str, Any] | None]) -> Iterator[RuleProblem]:
    for object_type, description in descriptions.items():
        if description is None:
            continue
        hidden = [name for name in _OWN_FIELDS[object_type] if not has_field(description, name)]
        if hidden:
            yield RuleProblem(
                f"field-level security hides {_list(object_type, hidden)} from the integration user: grant Read and "
                f"Edit access under Object Settings in {PERMISSION_SET}"
            )
        unsearched = [
            name
            for name in OPTIONAL_FIELDS
            if name in MATCH_FIELDS.get(object_type, ()) and not has_field(description, name)
        ]
        if unsearched:
            text = f"people are not found by {_list(object_type, unsearched)}, hidden by field-level security"
            yield RuleProblem(text, level="warning")


def _list(object_type: str, names: Sequence[str]) -> str:
    return ", ".join(f"{object_type}.{name}" for name in names)


def _external_id_problems(
    org: Org, descriptions: Mapping[str, Mapping[str, Any] | None], uses: Sequence[ActionUse]
) -> Iterator[RuleProblem]:
    """Find external ID fields without which an action waits. Tasks can do without theirs."""
    required = {
        "create_case": ("Case", org.settings.case_field),
        "create_event": ("Event", org.settings.task_field),
    }
    names = {use.action.name for use in uses}
    for action, (object_type, field) in required.items():
        description = descriptions.get(object_type) if action in names else None
        if description is None:
            continue
        problem = external_id_problem(description, object_type, field)
        if not has_field(description, field):
            problem = (
                f"{object_type}.{field} is missing or hidden from this user (for {action}): run `bridge connections "
                f"setup salesforce`, then grant Read and Edit access to the field in {PERMISSION_SET}"
            )
        if problem:
            yield RuleProblem(problem)


def _campaign_problems(
    org: Org, descriptions: Mapping[str, Mapping[str, Any] | None], uses: Sequence[ActionUse]
) -> Iterator[RuleProblem]:
    """Find campaigns that the org does not have, and member statuses that a campaign does not have."""
    for use in uses:
        name, status = use.params.get("campaign"), use.params.get("status")
        if not isinstance(name, str) or descriptions.get("Campaign") is None:
            continue
        campaign = org.campaigns.find(name)
        text, location = campaign.problem, "campaign"
        if campaign.id and isinstance(status, str) and campaign.status(status) is None:
            text, location = campaign.status_problem(status), "status"
        text, _, hint = text.partition("; ")
        if " has no campaign `" in text:
            hint = org.campaigns.suggestion(name)
        if text:
            yield RuleProblem(text, hint, use, (location,))


def _field_problems(
    descriptions: Mapping[str, Mapping[str, Any] | None], uses: Sequence[ActionUse]
) -> Iterator[RuleProblem]:
    for use in uses:
        for param, object_types in _FIELD_PARAMS.get(use.action.name, {}).items():
            visible = {name: described for name in object_types if (described := descriptions.get(name))}
            access = "updateable" if use.action.name in _UPDATES else "createable"
            for name, value in use.properties(param).items() if visible else ():
                found = find_described(visible, name, access)
                problem = found if isinstance(found, tuple) else check_value(found, name, value)
                if problem is not None:
                    text, hint, level = problem
                    yield RuleProblem(text, hint, use, (param, name), level)
        for param, (object_type, name) in _VALUE_PARAMS.get(use.action.name, {}).items():
            described = descriptions.get(object_type)
            if described and param in use.params:
                found = find_described({object_type: described}, name, "createable")
                problem = None if isinstance(found, tuple) else check_value(found, param, use.params[param])
                if problem is not None:
                    text, hint, level = problem
                    if name in _OPTIONAL_FIELDS and (level == "error" or object_type in ("Task", "Event")):
                        text, level = f"{text.partition(';')[0]}; it is left out", "warning"
                    yield RuleProblem(text, hint, use, (param,), level)


def _required_field_problems(
    descriptions: Mapping[str, Mapping[str, Any] | None], uses: Sequence[ActionUse]
) -> Iterator[RuleProblem]:
    for use in uses:
        for object_type, access in _access(use).items():
            description = descriptions.get(object_type)
            if description is None or "create" not in access:
                continue
            params = [
                param
                for param, object_types in _FIELD_PARAMS.get(use.action.name, {}).items()
                if object_type in object_types
            ]
            written = {name.lower() for param in params for name in use.properties(param)}
            for name in required_fields(description):
                if name.lower() not in written:
                    hint = (
                        f"set it under `{params[-1]}`" if params else "give it a default value in Salesforce"
                    )
                    yield RuleProblem(f"every new {object_type} must have the field `{name}`", hint, use)


def _open_status_problems(org: Org, uses: Sequence[ActionUse]) -> Iterator[RuleProblem]:
    """Find statuses of close_case that do not close the case."""
    closing = [use for use in uses if use.action.name == "close_case" and use.params.get("status")]
    if not closing:
        return
    rows = org.query_together({"Status": select(("ApiName",), "CaseStatus", "IsClosed = false")})
    open_statuses = {row["ApiName"] for row in rows.get("Status", ())}
    for use in closing:
        if use.params["status"] in open_statuses:
            text = f"with the status `{use.params['status']}`, the case stays open"
            hint = "leave `status` out, or write a status that is closed in the org"
            yield RuleProblem(text, hint, use, ("status",))


def _flag_problems(
    descriptions: Mapping[str, Mapping[str, Any] | None], uses: Sequence[ActionUse]
) -> Iterator[RuleProblem]:
    """Find opt-out flags that set_opt_out cannot write. The check of the connection names them as well, as a note."""
    for use in (use for use in uses if use.action.name == "set_opt_out"):
        channel = use.params.get("channel")
        is_known = isinstance(channel, str)
        flags = [EMAIL_FLAG] if channel == "email" else [CALL_FLAG] if is_known else [EMAIL_FLAG, CALL_FLAG]
        for object_type in _PEOPLE:
            description = descriptions.get(object_type)
            for flag in flags if description else ():
                found = find_described({object_type: description or {}}, flag, "updateable")
                if isinstance(found, tuple):
                    text, _, level = found
                    hint = (
                        f"grant Read and Edit access to the field under Object Settings in {PERMISSION_SET}"
                    )
                    yield RuleProblem(text, hint, use, ("channel",), level)


def _owner_problems(org: Org, uses: Sequence[ActionUse]) -> Iterator[RuleProblem]:
    if org.settings.owner and (problem := _owner_problem(org, org.settings.owner, queue_allowed=False)):
        yield RuleProblem(f"SALESFORCE_OWNER: {problem}")
    for use in uses:
        owner = use.params.get("owner")
        if isinstance(owner, str) and owner != CONTACT_OWNER:
            problem = _owner_problem(org, owner, queue_allowed=use.action.name in _QUEUE_OWNED)
            if problem:
                yield RuleProblem(
                    problem, "a rule with a wrong owner still writes its record", use, ("owner",)
                )


def _owner_problem(org: Org, name: str, *, queue_allowed: bool) -> str:
    owner = org.owners.find(name)
    if owner.problem or owner.is_user or queue_allowed:
        return owner.problem
    return "a queue can own leads and cases only: choose a user"

"""Check and setup of an org: the login, and the external ID fields that keep a record from being written twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.errors import AccountError, ConfigError

from . import sdk
from .account_errors import PERMISSION_SET
from .errors import errors_in
from .org import CALL_FLAG, EMAIL_FLAG, Org
from .settings import connector

_METADATA = {
    "type": "Text",
    "label": "Conversation Id",
    "length": 255,
    "externalId": True,
    "unique": True,
    "caseSensitive": False,
}


@connector.check
def check(org: Org) -> str:
    """Log in and read the description of Task. Writes nothing."""
    task = org.describe("Task")
    if not task["createable"]:
        raise ConfigError(
            "this user may not create Tasks: grant create and edit access to Task in its permission set"
        )
    usage = f"logged in, {org.session.usage or 'an unknown number'} of the org's daily requests used"
    field = org.settings.task_field
    problem = external_id_problem(task, "Task", field)
    if problem is not None:
        raise ConfigError(problem)
    if not has_field(task, field):
        return (
            f"{usage}; Task.{field} is missing or hidden from this user, so Tasks are identified by CallObject: "
            "run `bridge connections setup salesforce`"
        )
    return "; ".join([usage, f"Task.{field} exists", *_hidden_flags(org)])


def has_field(description: Mapping[str, Any], name: str) -> bool:
    """Return whether the integration user can see a field of the described object type."""
    return any(field["name"] == name for field in description["fields"])


def external_id_problem(description: Mapping[str, Any], object_type: str, name: str) -> str | None:
    """Return what is wrong with an external ID field. None: it is usable, or missing."""
    field = next((field for field in description["fields"] if field["name"] == name), None)
    if field is None:
        return None
    if not (field["externalId"] and field["unique"]):
        page = "Activity" if object_type in ("Task", "Event") else object_type
        return f"{object_type}.{name} must be an External ID and unique: change it in Setup, {page}, Fields"
    if not field["createable"]:
        return f"this user may not write {object_type}.{name}: grant edit access to the field in its permission set"
    return None


def _hidden_flags(org: Org) -> list[str]:
    """Return a note for each opt-out flag that this user cannot read or write."""
    notes = []
    for object_type in ("Contact", "Lead"):
        for flag in (EMAIL_FLAG, CALL_FLAG):
            try:
                org.require_fields(object_type, [flag], "updateable")
            except ConfigError as error:
                notes.append(f"{error} (needed by messaging.crm_opt_outs and set_opt_out)")
    return notes


@connector.setup
def setup(org: Org) -> str:
    """Create the External ID fields on Activity and Case, where they are missing."""
    fields = {"Task": ("Activity", org.settings.task_field), "Case": ("Case", org.settings.case_field)}
    return "; ".join(_ensure_field(org, visible, *names) for visible, names in fields.items())


def _ensure_field(org: Org, visible_type: str, object_type: str, name: str) -> str:
    """Create a field unless it exists. Activities are described as `visible_type` Task."""
    try:
        description = org.describe(visible_type)
    except AccountError as error:
        return f"no field for {visible_type}: {error.detail}"
    if has_field(description, name):
        return f"{visible_type}.{name} exists"
    try:
        body = {"FullName": f"{object_type}.{name}", "Metadata": _METADATA}
        org.rest("POST", "tooling/sobjects/CustomField", body)
        outcome = "created"
    except sdk.SalesforceError as error:
        if "DUPLICATE_DEVELOPER_NAME" not in str(errors_in(error)):
            raise ConfigError(
                f"this user may not create fields: in Setup, Object Manager, {object_type}, Fields, add the text field "
                f"{name} (255, External ID, unique) and grant the integration user edit access to it"
            ) from error
        outcome = "exists, but is hidden from this user"
    return f"{object_type}.{name} {outcome}; grant read and edit access to it in {PERMISSION_SET}"

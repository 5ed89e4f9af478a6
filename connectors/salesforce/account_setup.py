"""Check and setup of a Salesforce org."""

from __future__ import annotations

from simple_salesforce.exceptions import SalesforceError

from bridge.errors import ConfigError

from .errors import errors_in
from .org import Org
from .settings import connector


@connector.check
def check(org: Org) -> str:
    """Log in and read the description of Task. Writes nothing."""
    task = org.rest("GET", "sobjects/Task/describe")
    if not task["createable"]:
        raise ConfigError(
            "this user may not create Tasks: grant create and edit access to Task in its permission set"
        )
    name = org.settings.task_field
    external_id = next((field for field in task["fields"] if field["name"] == name), None)
    usage = f"logged in, {org.session.usage or 'an unknown number'} of the org's daily requests used"
    if external_id is None:
        return (
            f"{usage}; Task.{name} is missing or hidden from this user, so Tasks are identified by CallObject: "
            "run `bridge connections setup salesforce`"
        )
    if not (external_id["externalId"] and external_id["unique"]):
        raise ConfigError(
            f"Task.{name} must be an External ID and unique: change it in Setup, Activity, Fields"
        )
    if not external_id["createable"]:
        raise ConfigError(
            f"this user may not write Task.{name}: grant edit access to the field in its permission set"
        )
    return f"{usage}; Task.{name} exists"


@connector.setup
def setup(org: Org) -> str:
    """Create the External ID field on Activity."""
    name = org.settings.task_field
    fields = {field["name"] for field in org.rest("GET", "sobjects/Task/describe")["fields"]}
    if name in fields:
        return f"Task.{name} exists"
    metadata = {
        "type": "Text",
        "label": "Conversation Id",
        "length": 255,
        "externalId": True,
        "unique": True,
        "caseSensitive": False,
    }
    try:
        org.rest(
            "POST", "tooling/sobjects/CustomField", {"FullName": f"Activity.{name}", "Metadata": metadata}
        )
    except SalesforceError as error:
        if "DUPLICATE_DEVELOPER_NAME" not in str(errors_in(error)):
            raise ConfigError(
                f"this user may not create fields: in Setup, Activity, Fields, add the text field {name} (255, "
                "External ID, unique) and grant the integration user edit access to it"
            ) from error
    return (
        f"Activity.{name} created; grant read and edit access to it in the integration user's permission set"
    )

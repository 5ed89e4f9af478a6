"""Members of campaigns: one per campaign and person, with a status that the campaign has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.sandbox.salesforce.errors import RecordError

if TYPE_CHECKING:
    from bridge.sandbox.salesforce.records import Records

_DEFAULT_STATUSES = (("Sent", False), ("Responded", True))
"""Statuses of a new campaign, and whether such a member has responded. The first one is the default."""


def default_statuses(campaign_id: str) -> list[dict[str, Any]]:
    """Return the statuses of a new campaign."""
    return [
        {
            "CampaignId": campaign_id,
            "Label": label,
            "HasResponded": has_responded,
            "IsDefault": number == 1,
            "SortOrder": number,
        }
        for number, (label, has_responded) in enumerate(_DEFAULT_STATUSES, 1)
    ]


def set_status(records: Records, values: dict[str, Any], campaign_id: str | None) -> None:
    """Set the status of a member that is created or updated, and whether it has responded.

    Salesforce does not refuse a status that the campaign lacks: the member gets the campaign's default status.
    """
    statuses = [
        status
        for status in records.active_records(records.types["CampaignMemberStatus"])
        if status["CampaignId"] == campaign_id
    ]
    if not statuses:
        return
    default = next(status for status in statuses if status["IsDefault"])
    status = next((status for status in statuses if status["Label"] == values.get("Status")), default)
    values |= {"Status": status["Label"], "HasResponded": status["HasResponded"]}


def check_member(records: Records, member_id: str, fields: dict[str, Any]) -> None:
    """Raise RecordError unless the member is a contact or a lead that is not in the campaign yet."""
    person = "ContactId" if fields.get("ContactId") else "LeadId"
    if not fields.get(person):
        raise RecordError(
            "REQUIRED_FIELD_MISSING",
            "Required fields are missing: [ContactId or LeadId]",
            ["ContactId", "LeadId"],
        )
    for other in records.active_records(records.types["CampaignMember"]):
        same = (
            other["CampaignId"] == fields.get("CampaignId")
            and other[person] == fields[person]
            and other.id != member_id
        )
        if same:
            raise RecordError("DUPLICATE_VALUE", "Already a campaign member.")

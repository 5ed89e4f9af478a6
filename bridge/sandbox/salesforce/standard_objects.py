"""The object types of a new org, with their standard fields and the external ID fields that setup creates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bridge.sandbox.salesforce.schema import Field, SObjectType


def default_object_types(statuses: Mapping[str, Mapping[str, bool]]) -> dict[str, SObjectType]:
    """Return the object types of a new org. `statuses` are the values of Task.Status and Case.Status."""
    phones = "Phone MobilePhone HomePhone OtherPhone AssistantPhone"
    types = [
        _type(
            "Task",
            "00T",
            "Subject CallDisposition CallObject",
            Field("Description", "textarea", 32_000),
            Field("ActivityDate", "date"),
            Field("Status", "picklist", 40, tuple(statuses["Task"]), restricted=True, required=True),
            Field("Priority", "picklist", 40, ("High", "Normal", "Low"), restricted=True, required=True),
            Field("Type", "picklist", 40, ("Call", "Email", "Meeting", "Other")),
            Field("CallType", "picklist", 40, ("Internal", "Inbound", "Outbound"), restricted=True),
            Field("CallDurationInSeconds", "int"),
            Field(
                "TaskSubtype",
                "picklist",
                40,
                ("Task", "Email", "ListEmail", "Cadence", "Call", "LinkedIn"),
                restricted=True,
                updateable=False,
            ),
            Field("WhoId", "reference", references=("Contact", "Lead")),
            Field("WhatId", "reference", references=("Account", "Opportunity", "Case")),
            Field("ReminderDateTime", "datetime"),
            Field("IsReminderSet", "boolean"),
            _system_field("AccountId", "reference", references=("Account",)),
            _system_field("IsClosed", "boolean"),
            _system_field("IsHighPriority", "boolean"),
            _system_field("CompletedDateTime", "datetime"),
            Field("Conversation_Id__c", unique=True, external_id=True),
        ),
        _type(
            "Event",
            "00U",
            "Subject Location",
            Field("Description", "textarea", 32_000),
            Field("StartDateTime", "datetime", required=True),
            Field("EndDateTime", "datetime"),
            Field("DurationInMinutes", "int"),
            Field("IsAllDayEvent", "boolean"),
            Field("IsPrivateEvent", "boolean"),
            Field("ShowAs", "picklist", 40, ("Busy", "OutOfOffice", "Free"), restricted=True),
            Field("Type", "picklist", 40, ("Call", "Email", "Meeting", "Other")),
            Field("WhoId", "reference", references=("Contact", "Lead")),
            Field("WhatId", "reference", references=("Account", "Opportunity", "Case", "Campaign")),
            Field("ReminderDateTime", "datetime"),
            Field("IsReminderSet", "boolean"),
            _system_field("ActivityDate", "date"),
            _system_field("AccountId", "reference", references=("Account",)),
            Field("Conversation_Id__c", unique=True, external_id=True),
        ),
        _type(
            "Contact",
            "003",
            "Title Department MailingStreet MailingCity MailingState MailingPostalCode MailingCountry",
            *_person_fields(phones),
            Field("AccountId", "reference", references=("Account",)),
            Field("Birthdate", "date"),
            _system_field("MasterRecordId", "reference", references=("Contact",)),
            _system_field("LastActivityDate", "date"),
        ),
        _type(
            "Lead",
            "00Q",
            "Title Industry Street City State PostalCode Country Website",
            *_person_fields("Phone MobilePhone"),
            Field("Company", required=True),
            Field(
                "Status",
                "picklist",
                40,
                (
                    "Open - Not Contacted",
                    "Working - Contacted",
                    "Closed - Converted",
                    "Closed - Not Converted",
                ),
                restricted=True,
                required=True,
            ),
            Field("Rating", "picklist", 40, ("Hot", "Warm", "Cold")),
            _system_field("IsConverted", "boolean"),
            _system_field("ConvertedDate", "date"),
            _system_field("ConvertedContactId", "reference", references=("Contact",)),
            _system_field("ConvertedAccountId", "reference", references=("Account",)),
            _system_field("MasterRecordId", "reference", references=("Lead",)),
            _system_field("LastActivityDate", "date"),
        ),
        _type(
            "Case",
            "500",
            "Subject Reason Type SuppliedName SuppliedCompany",
            Field("Description", "textarea", 32_000),
            Field("SuppliedEmail", "email", 80),
            Field("SuppliedPhone", "phone", 40),
            Field("Status", "picklist", 40, tuple(statuses["Case"]), restricted=True, required=True),
            Field("Priority", "picklist", 40, ("High", "Medium", "Low"), restricted=True),
            Field("Origin", "picklist", 40, ("Phone", "Email", "Web")),
            Field("ContactId", "reference", references=("Contact",)),
            Field("AccountId", "reference", references=("Account",)),
            Field("Conversation_Id__c", unique=True, external_id=True),
            _system_field("CaseNumber"),
            _system_field("IsClosed", "boolean"),
            _system_field("ClosedDate", "datetime"),
        ),
        _type(
            "Account", "001", "Website Industry", Field("Name", required=True), Field("Phone", "phone", 40)
        ),
        _type(
            "Opportunity",
            "006",
            "",
            Field("Name", length=120, required=True),
            Field("StageName", "picklist", 40, ("Prospecting", "Closed Won", "Closed Lost"), required=True),
            Field("CloseDate", "date", required=True),
            Field("Amount", "currency"),
            Field("AccountId", "reference", references=("Account",)),
            _system_field("IsClosed", "boolean"),
        ),
        _type(
            "OpportunityContactRole",
            "00K",
            "Role",
            Field("OpportunityId", "reference", required=True, references=("Opportunity",)),
            Field("ContactId", "reference", required=True, references=("Contact",)),
            Field("IsPrimary", "boolean"),
        ),
        _type(
            "Campaign",
            "701",
            "",
            Field("Name", length=80, required=True),
            Field("IsActive", "boolean"),
            Field("Status", "picklist", 40, ("Planned", "In Progress", "Completed", "Aborted")),
            Field("Type", "picklist", 40, ("Email", "Telemarketing", "Webinar", "Other")),
            Field("StartDate", "date"),
            Field("EndDate", "date"),
        ),
        _type(
            "CampaignMember",
            "00v",
            "",
            Field("CampaignId", "reference", required=True, updateable=False, references=("Campaign",)),
            Field("ContactId", "reference", updateable=False, references=("Contact",)),
            Field("LeadId", "reference", updateable=False, references=("Lead",)),
            Field("Status", "picklist", 40, ("Sent", "Responded")),
            _system_field("HasResponded", "boolean"),
            _system_field("FirstRespondedDate", "date"),
            has_owner=False,
        ),
        _read_only(
            "CampaignMemberStatus",
            "01Y",
            "Label",
            _system_field("CampaignId", "reference", references=("Campaign",)),
            _system_field("HasResponded", "boolean"),
            _system_field("IsDefault", "boolean"),
            _system_field("SortOrder", "int"),
        ),
        _read_only("User", "005", "Name Username Email TimeZoneSidKey", _system_field("IsActive", "boolean")),
        _read_only("Group", "00G", "Name DeveloperName Type"),
        _read_only(
            "Organization", "00D", "Name TimeZoneSidKey InstanceName", _system_field("IsSandbox", "boolean")
        ),
        *(
            _read_only(
                f"{name}Status",
                "01J",
                "MasterLabel ApiName",
                _system_field("IsClosed", "boolean"),
                _system_field("IsDefault", "boolean"),
                _system_field("SortOrder", "int"),
            )
            for name in ("Task", "Case")
        ),
    ]
    return {object_type.name: object_type for object_type in types}


def _system_field(name: str, kind: str = "string", references: tuple[str, ...] = ()) -> Field:
    """Return a field that only Salesforce writes."""
    return Field(name, kind, createable=False, updateable=False, references=references)


def _person_fields(phones: str) -> list[Field]:
    return [
        Field("FirstName", length=40),
        Field("LastName", length=80, required=True),
        _system_field("Name"),
        Field("Salutation", "picklist", 40, ("Mr.", "Ms.", "Mrs.", "Dr.", "Prof.", "Mx.")),
        Field("Email", "email", 80),
        *(Field(name, "phone", 40) for name in phones.split()),
        Field("Description", "textarea", 32_000),
        Field("LeadSource", "picklist", 40, ("Web", "Phone Inquiry", "Referral", "Other")),
        Field("DoNotCall", "boolean"),
        Field("HasOptedOutOfEmail", "boolean"),
    ]


def _type(name: str, prefix: str, string_fields: str, *fields: Field, has_owner: bool = True) -> SObjectType:
    owner = Field(
        "OwnerId", "reference", references=("User", "Group") if name in ("Lead", "Case") else ("User",)
    )
    system = [
        _system_field("Id", "id"),
        _system_field("IsDeleted", "boolean"),
        *([owner] if has_owner else []),
        _system_field("CreatedById", "reference", references=("User",)),
        _system_field("CreatedDate", "datetime"),
        _system_field("LastModifiedDate", "datetime"),
        _system_field("SystemModstamp", "datetime"),
    ]
    all_fields = [*system, *(Field(field_name) for field_name in string_fields.split()), *fields]
    return SObjectType(name, prefix, {definition.name: definition for definition in all_fields})


def _read_only(name: str, prefix: str, string_fields: str, *fields: Field) -> SObjectType:
    all_fields = [
        _system_field("Id", "id"),
        *map(_system_field, string_fields.split()),
        *fields,
    ]
    return SObjectType(
        name, prefix, {definition.name: replace(definition, createable=False) for definition in all_fields}
    )

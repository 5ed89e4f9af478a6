"""Errors that concern the org or its integration user instead of one record: the connection is paused for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bridge.errors import AccountError, AuthenticationError

PERMISSION_SET = "the integration user's permission set (Setup, Permission Sets)"
_API_ENABLED = f"select API Enabled under System Permissions in {PERMISSION_SET}"
_STORAGE = ("the org's data storage is full", "delete records or buy storage: Setup, Storage Usage")
_ORG_LOCKED = (
    "the org is locked",
    "log in to the org in a browser: a trial may have ended, or Salesforce may have suspended the org",
)
_ACTIVE_OWNER = (
    "choose an active user in `owner` of the rule and in SALESFORCE_OWNER; to write to records of users who left, "
    f"select Update Records with Inactive Owners under System Permissions in {PERMISSION_SET}"
)
_CAUSES: Mapping[str, tuple[str, str]] = {
    "STORAGE_LIMIT_EXCEEDED": _STORAGE,
    "EXCEEDED_QUOTA": _STORAGE,
    "ORG_LOCKED": _ORG_LOCKED,
    "TRIAL_EXPIRED": _ORG_LOCKED,
    "INACTIVE_ORG": _ORG_LOCKED,
    "ORG_NOT_OWNED_BY_INSTANCE": (
        "the org has moved to another instance",
        "set SALESFORCE_URL to the Current My Domain URL in Setup, My Domain",
    ),
    "INVALID_OPERATION_WITH_EXPIRED_PASSWORD": (
        "the integration user's password has expired",
        "select Password Never Expires under System Permissions in the integration user's permission set or profile",
    ),
    "PASSWORD_LOCKOUT": ("the integration user is locked out", "unlock the user in Setup, Users"),
    "LICENSE_LIMIT_EXCEEDED": (
        "a license of the org is used up",
        "see Setup, Company Information, User Licenses",
    ),
    "TXN_SECURITY_NO_ACCESS": (
        "a transaction security policy of the org forbids the request",
        "exempt the integration user in Setup, Transaction Security Policies",
    ),
    "FUNCTIONALITY_NOT_ENABLED": (
        "the org lacks a feature that the request needs",
        "enable it in Setup, or remove the action from the rules",
    ),
    "UNSUPPORTED_API_VERSION": (
        "the org does not support this API version",
        "remove SALESFORCE_API_VERSION from the settings",
    ),
    "INACTIVE_OWNER_OR_USER": (
        "an inactive user owns the record or would own it",
        _ACTIVE_OWNER,
    ),
    "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": (
        "the integration user has no access to a record that this one refers to",
        f"grant it under Object Settings in {PERMISSION_SET}: View All Records on the objects that the rules refer to",
    ),
}
"""Error code -> what is wrong, and what the operator does about it."""
_GRANT_ACCESS = (
    f"grant Create and Edit on the object under Object Settings in {PERMISSION_SET}, and Modify All Records if the "
    "org's sharing settings are private"
)
_AUTHENTICATION: Mapping[str, str] = {
    "API_CURRENTLY_DISABLED": _API_ENABLED,
    "API_DISABLED_FOR_ORG": f"{_API_ENABLED}; the edition must include the API (Enterprise, Unlimited, Developer)",
    "INVALID_SESSION_ID": "a new session is refused as well: check the session and IP settings of the integration "
    "user, and that its permission set has API Enabled",
}
_OWN_FIELD_NAMES = """
Id Name FirstName LastName Company Email Phone MobilePhone HomePhone OtherPhone LastActivityDate LastModifiedDate
CreatedDate IsConverted OwnerId AccountId ContactId WhoId WhatId Subject Description Status Priority Type ActivityDate
CallType CallDurationInSeconds CallDisposition CallObject IsClosed Origin LeadSource SuppliedName SuppliedEmail
SuppliedPhone SuppliedCompany StartDateTime EndDateTime Location ShowAs CampaignId LeadId
"""
_OWN_FIELDS = frozenset(_OWN_FIELD_NAMES.split())
"""Fields that the bridge reads and writes by itself. Others stand in a rule, which is then wrong, not the account."""
_READ_ONLY_FIELDS = "INVALID_FIELD_FOR_INSERT_UPDATE"


def account_failure(code: str, message: str, fields: Sequence[str], detail: str) -> AccountError | None:
    """Return the error for what is wrong with the account, None if it is the record or the rule."""
    if code in _AUTHENTICATION:
        return AuthenticationError(detail, fix=_AUTHENTICATION[code])
    if code in _CAUSES:
        cause, fix = _CAUSES[code]
        return AccountError(f"{detail}: {cause}", fix=fix)
    if code.startswith("INSUFFICIENT_ACCESS") and not re.search(r"\blocked\b|\bapproval\b", message):
        return AccountError(f"{detail}: the integration user may not write this record", fix=_GRANT_ACCESS)
    if code == "INVALID_CROSS_REFERENCE_KEY" and "RecordTypeId" in fields:
        return AccountError(
            f"{detail}: the record type is not assigned to the integration user",
            fix=f"assign the record type under Object Settings in {PERMISSION_SET}, or correct its ID in the rules",
        )
    return _hidden_object(code, message) or _hidden_field(code, message, fields, detail)


def hidden_object(object_type: str, access: str = "Read, Create and Edit") -> AccountError:
    """Return the error for an object type that the integration user may not read, or not write."""
    return AccountError(
        f"the integration user has no {access} access to {object_type}",
        fix=f"grant {access} on {object_type} under Object Settings in {PERMISSION_SET}",
    )


def _hidden_object(code: str, message: str) -> AccountError | None:
    """Return the error for an object type that the message names.

    With CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY, Salesforce also reports a failing Apex trigger, in other words.
    """
    if code == "INVALID_TYPE" and (match := re.search(r"sObject type '(\w+)' is not supported", message)):
        return hidden_object(match[1])
    refused = re.search(r"entity type cannot be (?:inserted|updated): ([\w ]+)", message)
    if code == "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY" and refused:
        return hidden_object(refused[1], "Create and Edit")
    return None


def _hidden_field(code: str, message: str, fields: Sequence[str], detail: str) -> AccountError | None:
    """Return the error for a field of the bridge that field-level security hides from the integration user."""
    missing = missing_field(code, message)
    names = [missing] if missing else list(fields) if code == _READ_ONLY_FIELDS else []
    if not names or not set(names) <= _OWN_FIELDS:
        return None
    return AccountError(
        f"{detail}: field-level security hides {', '.join(names)} from the integration user",
        fix=f"grant Read and Edit access to the field under Object Settings in {PERMISSION_SET}",
    )


def missing_field(code: str, message: str) -> str | None:
    """Return the field that does not exist for the integration user, if the error is about one."""
    match = re.search(r"No such column '(\w+)'", message) if code == "INVALID_FIELD" else None
    return match[1] if match else None

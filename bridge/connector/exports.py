"""What `bridge.connector` exports: the connector author's API."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bridge.connector.action import Action, BatchItem, Success
from bridge.connector.api import Connector, ConnectorGroup, Limits
from bridge.connector.callbacks import (
    Callback,
    CallbackReply,
    CallbackRequest,
    Channel,
    InboundMessage,
    MessageStatus,
    OptIn,
    OptOut,
    OptOutFlag,
    StatusUpdate,
)
from bridge.connector.contact_filling import details_to_fill, write_for_contact, write_for_contacts
from bridge.connector.contact_profile import ContactDetails, ContactField, ContactProfile
from bridge.connector.contact_resolution import refusal_notes, resolve_contact, resolve_contacts
from bridge.connector.contacts import (
    BatchResult,
    ContactDeleted,
    ContactLookupParams,
    ContactMatch,
    ContactQuery,
    ContactRef,
    ContactRefused,
    ContactSource,
    EventValue,
    FieldValue,
    FillableContactSource,
    FillResult,
    NewContact,
    Properties,
    Property,
    ResolvedContact,
    fields_to_write,
)
from bridge.connector.context import ContactCache, Context
from bridge.connector.crm import (
    CONTACT_OWNER,
    ON_MISSING,
    CallParams,
    ChatParams,
    ContactParams,
    ConversationParams,
    NewContactParams,
    NewTicketParams,
    OnMissing,
    PhoneCallParams,
    SentMessageParams,
    TaskParams,
    contact_result,
    items_by_conversation,
    owner_param,
)
from bridge.connector.deadline import check_deadline, count_request, remaining_seconds, report_quota
from bridge.connector.egress import Proxy, add_private_ca, is_loopback, proxy_for, tls_context
from bridge.connector.files import FileContent, download_file
from bridge.connector.idempotency import (
    IdempotencyInput,
    IdempotencyScope,
    SerializeBy,
    per_conversation,
    per_event,
    per_message,
)
from bridge.connector.json_api import JsonApi
from bridge.connector.json_response import json_object
from bridge.connector.meetings import MeetingParams, MeetingTimes, check_meeting
from bridge.connector.oauth import request_token
from bridge.connector.opt_outs import (
    EMAIL_CHANNELS,
    PHONE_CHANNELS,
    SetOptOutParams,
    addresses_of,
    find_all_contacts,
    flags_by_address,
)
from bridge.connector.params import ConnectorSettings, Email, Params, PhoneNumber, param
from bridge.connector.provider_records import ProviderRecord, RecordLink, UncertainDelivery, WhereToLook
from bridge.connector.public_addresses import is_public, resolve_host, send_to_verified
from bridge.connector.related_records import (
    RelatedRecords,
    forget_related_records,
    read_related_records,
    remember_own_deal,
    remember_own_ticket,
)
from bridge.connector.request_path import quote_id
from bridge.connector.response_limits import IncompleteResponse, ResponseReader, parts_to_send
from bridge.connector.rule_checks import FROM_EVENT, ActionUse, Location, Place, RuleProblem
from bridge.connector.search_limiter import SearchLimiter
from bridge.connector.sms import Segments, segments
from bridge.connector.texts import shorten, split_text, text_with_details
from bridge.connector.tokens import Token, TokenSource
from bridge.connector.transport import (
    ProviderUrl,
    SecretUrl,
    failure_from_exception,
    failure_from_status,
    http_client,
    parse_retry_after,
)
from bridge.connector.typed_values import (
    find_option,
    number_text,
    to_boolean,
    to_day,
    to_instant,
    to_items,
    to_number,
    to_text,
)
from bridge.contacts.address import address_key
from bridge.contacts.email import normalize_email
from bridge.contacts.phone import same_number, search_digits
from bridge.events import Event
from bridge.setting_types import Duration, SecretFile
from bridge.spelling import did_you_mean, nearest

if TYPE_CHECKING:
    from bridge.connector.requests_transport import DeadlineAdapter, enforce_deadline

_OF_REQUESTS = ("DeadlineAdapter", "enforce_deadline")
"""Imported on first use, because their module imports requests."""


def __getattr__(name: str) -> Any:
    """Import a name of `_OF_REQUESTS` on first use."""
    if name in _OF_REQUESTS:
        return getattr(import_module("bridge.connector.requests_transport"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CONTACT_OWNER",
    "EMAIL_CHANNELS",
    "FROM_EVENT",
    "ON_MISSING",
    "PHONE_CHANNELS",
    "Action",
    "ActionUse",
    "BatchItem",
    "BatchResult",
    "CallParams",
    "Callback",
    "CallbackReply",
    "CallbackRequest",
    "Channel",
    "ChatParams",
    "Connector",
    "ConnectorGroup",
    "ConnectorSettings",
    "ContactCache",
    "ContactDeleted",
    "ContactDetails",
    "ContactField",
    "ContactLookupParams",
    "ContactMatch",
    "ContactParams",
    "ContactProfile",
    "ContactQuery",
    "ContactRef",
    "ContactRefused",
    "ContactSource",
    "Context",
    "ConversationParams",
    "DeadlineAdapter",
    "Duration",
    "Email",
    "Event",
    "EventValue",
    "FieldValue",
    "FileContent",
    "FillResult",
    "FillableContactSource",
    "IdempotencyInput",
    "IdempotencyScope",
    "InboundMessage",
    "IncompleteResponse",
    "JsonApi",
    "Limits",
    "Location",
    "MeetingParams",
    "MeetingTimes",
    "MessageStatus",
    "NewContact",
    "NewContactParams",
    "NewTicketParams",
    "OnMissing",
    "OptIn",
    "OptOut",
    "OptOutFlag",
    "Params",
    "PhoneCallParams",
    "PhoneNumber",
    "Place",
    "Properties",
    "Property",
    "ProviderRecord",
    "ProviderUrl",
    "Proxy",
    "RecordLink",
    "RelatedRecords",
    "ResolvedContact",
    "ResponseReader",
    "RuleProblem",
    "SearchLimiter",
    "SecretFile",
    "SecretUrl",
    "Segments",
    "SentMessageParams",
    "SerializeBy",
    "SetOptOutParams",
    "StatusUpdate",
    "Success",
    "TaskParams",
    "Token",
    "TokenSource",
    "UncertainDelivery",
    "WhereToLook",
    "add_private_ca",
    "address_key",
    "addresses_of",
    "check_deadline",
    "check_meeting",
    "contact_result",
    "count_request",
    "details_to_fill",
    "did_you_mean",
    "download_file",
    "enforce_deadline",
    "failure_from_exception",
    "failure_from_status",
    "fields_to_write",
    "find_all_contacts",
    "find_option",
    "flags_by_address",
    "forget_related_records",
    "http_client",
    "is_loopback",
    "is_public",
    "items_by_conversation",
    "json_object",
    "nearest",
    "normalize_email",
    "number_text",
    "owner_param",
    "param",
    "parse_retry_after",
    "parts_to_send",
    "per_conversation",
    "per_event",
    "per_message",
    "proxy_for",
    "quote_id",
    "read_related_records",
    "refusal_notes",
    "remaining_seconds",
    "remember_own_deal",
    "remember_own_ticket",
    "report_quota",
    "request_token",
    "resolve_contact",
    "resolve_contacts",
    "resolve_host",
    "same_number",
    "search_digits",
    "segments",
    "send_to_verified",
    "shorten",
    "split_text",
    "text_with_details",
    "tls_context",
    "to_boolean",
    "to_day",
    "to_instant",
    "to_items",
    "to_number",
    "to_text",
    "write_for_contact",
    "write_for_contacts",
]

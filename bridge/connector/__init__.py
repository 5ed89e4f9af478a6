"""The connector author's API.

    connector = Connector("twilio", settings=Settings, limits=Limits(per_second=10, concurrency=8))

`docs/connectors.md` builds a complete connector. Everything that a connector needs is exported here: a connector file
imports this package, `bridge.errors` and its provider's SDK, nothing else of the bridge.
"""

from bridge.connector.api import (
    Action,
    BatchItem,
    Connector,
    ConnectorGroup,
    IdempotencyInput,
    IdempotencyScope,
    Limits,
    SerializeBy,
    Success,
    per_conversation,
    per_event,
    per_message,
)
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
from bridge.connector.contact_filling import write_for_contact, write_for_contacts
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
    SentMessageParams,
    TaskParams,
    contact_result,
    items_by_conversation,
    owner_param,
)
from bridge.connector.deadline import check_deadline, count_request, remaining_seconds, report_quota
from bridge.connector.egress import Proxy, add_private_ca, is_loopback, proxy_for, tls_context
from bridge.connector.files import FileContent, download_file
from bridge.connector.json_api import JsonApi
from bridge.connector.json_response import json_object
from bridge.connector.opt_outs import (
    EMAIL_CHANNELS,
    PHONE_CHANNELS,
    SetOptOutParams,
    addresses_of,
    find_all_contacts,
    flags_by_address,
)
from bridge.connector.params import ConnectorSettings, Email, Params, PhoneNumber, param
from bridge.connector.provider_records import ProviderRecord, UncertainDelivery, WhereToLook
from bridge.connector.public_addresses import is_public, resolve_host, send_to_verified
from bridge.connector.related_records import (
    RelatedRecords,
    forget_related_records,
    read_related_records,
    remember_own_ticket,
)
from bridge.connector.request_path import quote_id
from bridge.connector.response_limits import IncompleteResponse, ResponseReader, parts_to_send
from bridge.connector.rule_checks import FROM_EVENT, ActionUse, Location, Place, RuleProblem
from bridge.connector.sms import Segments, segments
from bridge.connector.transport import (
from bridge.connector.texts import shorten, split_text, text_with_details
    DeadlineAdapter,
    ProviderUrl,
    SecretUrl,
    enforce_deadline,
    failure_from_exception,
    failure_from_status,
    http_client,
    parse_retry_after,
)
from bridge.contacts.address import address_key
from bridge.contacts.email import normalize_email
from bridge.contacts.phone import same_number, search_digits
from bridge.events import Event
from bridge.setting_types import Duration, SecretFile
from bridge.spelling import did_you_mean, nearest

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
    "MessageStatus",
    "NewContact",
    "NewContactParams",
    "NewTicketParams",
    "OnMissing",
    "OptIn",
    "OptOut",
    "OptOutFlag",
    "Params",
    "PhoneNumber",
    "Place",
    "Properties",
    "Property",
    "ProviderRecord",
    "ProviderUrl",
    "Proxy",
    "RelatedRecords",
    "ResolvedContact",
    "ResponseReader",
    "RuleProblem",
    "SecretFile",
    "SecretUrl",
    "Segments",
    "SentMessageParams",
    "SerializeBy",
    "SetOptOutParams",
    "StatusUpdate",
    "Success",
    "TaskParams",
    "UncertainDelivery",
    "WhereToLook",
    "add_private_ca",
    "address_key",
    "addresses_of",
    "check_deadline",
    "contact_result",
    "count_request",
    "did_you_mean",
    "download_file",
    "enforce_deadline",
    "failure_from_exception",
    "failure_from_status",
    "fields_to_write",
    "find_all_contacts",
    "flags_by_address",
    "forget_related_records",
    "http_client",
    "is_loopback",
    "is_public",
    "items_by_conversation",
    "json_object",
    "nearest",
    "normalize_email",
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
    "remember_own_ticket",
    "report_quota",
    "resolve_contact",
    "resolve_contacts",
    "resolve_host",
    "same_number",
    "search_digits",
    "segments",
    "send_to_verified",
    "split_text",
    "text_with_details",
    "tls_context",
    "write_for_contact",
    "write_for_contacts",
]
    "shorten",

"""The connector author's API.

    connector = Connector("twilio", settings=Settings, limits=Limits(per_second=10, concurrency=8))

`docs/connectors.md` builds a complete connector. Everything that a connector needs is exported here: a connector file
imports this package, `bridge.errors` and its provider's SDK, nothing else of the bridge.
"""

from bridge.connector.api import (
    Action,
    BatchItem,
    Connector,
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
    CallParams,
    ChatParams,
    ContactParams,
    ConversationParams,
    TaskParams,
    contact_result,
    items_by_conversation,
)
from bridge.connector.deadline import check_deadline, remaining_seconds
from bridge.connector.opt_outs import (
    EMAIL_CHANNELS,
    PHONE_CHANNELS,
    SetOptOutParams,
    addresses_of,
    find_all_contacts,
    flags_by_address,
)
from bridge.connector.params import ConnectorSettings, Email, Params, PhoneNumber, param
from bridge.connector.sms import Segments, segments
from bridge.connector.transport import (
    DeadlineAdapter,
    ProviderUrl,
    SecretUrl,
    enforce_deadline,
    failure_from_exception,
    failure_from_status,
    http_client,
    is_loopback,
    parse_retry_after,
)
from bridge.contacts.address import address_key
from bridge.contacts.email import normalize_email
from bridge.contacts.phone import same_number, search_digits
from bridge.settings import Duration

__all__ = [
    "EMAIL_CHANNELS",
    "PHONE_CHANNELS",
    "Action",
    "BatchItem",
    "BatchResult",
    "CallParams",
    "Callback",
    "CallbackReply",
    "CallbackRequest",
    "Channel",
    "ChatParams",
    "Connector",
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
    "FillResult",
    "FillableContactSource",
    "IdempotencyInput",
    "IdempotencyScope",
    "InboundMessage",
    "Limits",
    "MessageStatus",
    "NewContact",
    "OptIn",
    "OptOut",
    "OptOutFlag",
    "Params",
    "PhoneNumber",
    "Properties",
    "Property",
    "ProviderUrl",
    "ResolvedContact",
    "SecretUrl",
    "Segments",
    "SerializeBy",
    "SetOptOutParams",
    "StatusUpdate",
    "Success",
    "TaskParams",
    "address_key",
    "addresses_of",
    "check_deadline",
    "contact_result",
    "enforce_deadline",
    "failure_from_exception",
    "failure_from_status",
    "fields_to_write",
    "find_all_contacts",
    "flags_by_address",
    "http_client",
    "is_loopback",
    "items_by_conversation",
    "normalize_email",
    "param",
    "parse_retry_after",
    "per_conversation",
    "per_event",
    "per_message",
    "refusal_notes",
    "remaining_seconds",
    "resolve_contact",
    "resolve_contacts",
    "same_number",
    "search_digits",
    "segments",
    "write_for_contact",
    "write_for_contacts",
]

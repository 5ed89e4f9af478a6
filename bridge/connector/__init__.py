"""What a connector is written with.

    connector = Connector("twilio", settings=Settings, limits=Limits(per_second=10, concurrent=8))

`docs/connectors.md` walks through a whole one. Everything a connector needs is exported here; a connector file
imports this package, `bridge.errors` and its partner's SDK, nothing else of the bridge.
"""

from bridge.connector.api import (
    Action,
    Callback,
    CallbackReply,
    CallbackRequest,
    Channel,
    Connector,
    ConnectorSettings,
    Effect,
    Email,
    Job,
    Lane,
    Limits,
    OptIn,
    OptOut,
    Params,
    PhoneNumber,
    Receipt,
    ReceiptState,
    Sent,
    param,
    per_conversation,
    per_event,
    per_message,
)
from bridge.connector.context import Context, Identities
from bridge.connector.deadline import check_deadline, remaining
from bridge.connector.transport import (
    GuardedAdapter,
    PartnerUrl,
    SecretUrl,
    failure_of_network,
    failure_of_status,
    http_client,
    is_loopback,
    parse_retry_after,
)

__all__ = [
    "Action",
    "Callback",
    "CallbackReply",
    "CallbackRequest",
    "Channel",
    "Connector",
    "ConnectorSettings",
    "Context",
    "Effect",
    "Email",
    "GuardedAdapter",
    "Identities",
    "Job",
    "Lane",
    "Limits",
    "OptIn",
    "OptOut",
    "Params",
    "PartnerUrl",
    "PhoneNumber",
    "Receipt",
    "ReceiptState",
    "SecretUrl",
    "Sent",
    "check_deadline",
    "failure_of_network",
    "failure_of_status",
    "http_client",
    "is_loopback",
    "param",
    "parse_retry_after",
    "per_conversation",
    "per_event",
    "per_message",
    "remaining",
]

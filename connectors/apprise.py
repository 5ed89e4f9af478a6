"""Apprise connector: messages to the team over more than a hundred services, through the library Apprise.

The library says only whether a service took a message. So an attempt that failed is repeated, and a message whose
confirmation was lost comes twice: that is tolerable for the team, and never for customers.
"""

from __future__ import annotations

import logging
import os
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, SecretStr, model_validator

from bridge.connector import (
    Connector,
    ConnectorGroup,
    ConnectorSettings,
    Context,
    Limits,
    Params,
    SerializeBy,
    Success,
    check_deadline,
    count_request,
    param,
    per_event,
    proxy_for,
    remaining_seconds,
)
from bridge.errors import AccountError, TransientError

if TYPE_CHECKING:
    from apprise import NotifyBase

CONNECT_SECONDS = 3.0
READ_SECONDS = 8.0
"""Longest wait of the library for a connection and for a response. A URL can set less, with `cto` and `rto`."""
TOTAL_SECONDS = 15.0
"""Time after which an attempt no longer waits for the library."""
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_STATUS = re.compile(r"\berror=(\d{3})\b")
"""How most services of the library log the status of a response."""

Kind = Literal["info", "success", "warning", "failure"]


def _is_one_url(url: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+.-]*://[^\s,]+", url.get_secret_value()):
        raise ValueError(
            "must be the URL of one service as Apprise writes it, such as discord://ID/TOKEN or "
            "ntfys://ntfy.example.com/topic, with %2C for a comma; another service is another connection"
        )
    return url


class Settings(ConnectorSettings):
    """Settings: `APPRISE_URL`, a secret, because it contains the credentials of the service."""

    url: Annotated[SecretStr, AfterValidator(_is_one_url)]
    """Address of one service, as Apprise writes it: `discord://ID/TOKEN`, `tgram://TOKEN/CHAT`, `ntfys://HOST/TOPIC`."""

    @model_validator(mode="after")
    def _require_library(self) -> Self:
        if find_spec("apprise") is None:
            raise ValueError(
                "`apprise.notify` needs the apprise extra: run `pip install 'heppu-bridge[apprise]'`, "
                "or `pip install '.[apprise]'` in a checkout"
            )
        return self


connector = Connector(
    "apprise",
    settings=Settings,
    limits=Limits(per_second=1, concurrency=2),
    description="Sends messages to the team over more than a hundred services, such as Discord, Telegram and ntfy.",
    group=ConnectorGroup.TEAM_MESSAGES,
)


@connector.client
class Notifier:
    """Sends over one service. Each attempt has its own objects of the library, because they are not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.url
        _silence_logs()
        service = self._service()
        self.service_name = str(service.service_name)
        _require_same_proxy(getattr(service, "host", None))

    def send(self, title: str, text: str, kind: Kind) -> None:
        """Send a message. Raise TransientError if the service did not take it in time."""
        import apprise  # takes most of a second, which only its users pay

        service = self._service()
        notifier = apprise.Apprise(asset=service.asset)
        notifier.add(service)
        check_deadline()
        count_request()
        result = notifier.notify(
            body=text,
            title=title,
            notify_type=kind,
            body_format=apprise.NotifyFormat.TEXT,
            timeout=max(0.01, remaining_seconds(TOTAL_SECONDS)),
        )
        if result:
            return
        if result.status is apprise.AppriseResultStatus.TIMEOUT:
            raise TransientError(f"{self.service_name} did not answer in time", reason="timeout")
        statuses = [match[1] for entry in result.logs() if (match := _STATUS.search(str(entry)))]
        status = f" (status {statuses[-1]})" if statuses else ""
        raise TransientError(
            f"{self.service_name} did not take the message{status}; Apprise does not say why"
        )

    def _service(self) -> NotifyBase:
        import apprise

        # Nothing is written to disk, and no redirect leads a message to another host.
        asset = apprise.AppriseAsset(
            async_mode=False, secure_logging=True, storage_mode="memory", http_redirects=False
        )
        service = apprise.Apprise.instantiate(self._url.get_secret_value(), asset=asset)
        if service is None:
            raise AccountError(
                "Apprise cannot read the URL of the connection",
                fix="set APPRISE_URL to a URL as docs/apprise.md shows it; `apprise -l` lists the services",
            )
        service.overflow_mode = (
            apprise.OverflowMode.TRUNCATE
        )  # otherwise a long text may become several messages
        service.socket_connect_timeout = min(
            service.socket_connect_timeout, remaining_seconds(CONNECT_SECONDS)
        )
        service.socket_read_timeout = min(service.socket_read_timeout, remaining_seconds(READ_SECONDS))
        return service


def _silence_logs() -> None:
    """Keep the library's logs out of the bridge's: they may name recipients, and paths are often secrets."""
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.WARNING)  # the results of an attempt take these
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)


def _require_same_proxy(host: str | None) -> None:
    """Raise AccountError if the bridge uses a proxy for this host, which the library would not use."""
    if proxy_for(host or "service.example") and not any(map(os.environ.get, _PROXY_VARIABLES)):
        raise AccountError(
            "Apprise does not use BRIDGE_HTTPS_PROXY",
            fix="set HTTPS_PROXY to the same address, and NO_PROXY for hosts that are reached directly",
        )


@connector.check
def check(notifier: Notifier) -> str:
    """Parse the URL. Sends nothing, because no service can be asked without a message."""
    return f"the URL is one of {notifier.service_name}; only the first message shows whether it works"


class NotifyParams(Params):
    """A message to the team."""

    text: str = param(
        ...,
        "Text of the message, without markup. Values from the event are changed invisibly, so that a visitor's name is "
        "not a mention or a link. Texts that are too long for the service are cut.",
        example="A call from {{ contact.name | default('an unknown caller') }} failed: {{ event.conversationId }}",
        markup="plain",
        min_length=1,
    )
    title: str | None = param(
        None,
        "Title of the message, for services that show one.",
        example="Missed call from {{ contact.name }}",
        markup="plain",
    )
    type: Kind = param(
        "info", "Kind of the message, which many services show as a color or an icon.", example="warning"
    )
    links: bool = param(
        True,
        "Add lines with the URLs of the event in the dashboard (with BRIDGE_PUBLIC_URL) and of the contact in the "
        "CRM (if a connection has found it).",
        example=False,
    )


@connector.action(idempotency=per_event, dedupe_by=("title", "text"), serialize_by=SerializeBy.NONE)
def notify(notifier: Notifier, params: NotifyParams, context: Context) -> Success:
    """Send a message to the team, at least once: if its confirmation is lost, it comes twice."""
    links: list[Any] = context.team_links() if params.links else []
    text = "\n".join([params.text, *(f"{link.label}: {link.url}" for link in links)])
    notifier.send(params.title or "", text, params.type)
    return Success(detail=f"sent over {notifier.service_name}")

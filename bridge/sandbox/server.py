"""The sandbox server: one HTTP port, one SMTP port, one thread."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from types import TracebackType
from typing import Any, Literal, Self

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bridge.clock import Clock
from bridge.http_server import AbortingServer
from bridge.sandbox import heppu, heppu_requests, slack, slack_workspace, teams
from bridge.sandbox.control import Control
from bridge.sandbox.email_account import EmailProvider
from bridge.sandbox.faults import Fault, Faults, HostileResponse
from bridge.sandbox.gateway import Gateway, RecordedRequest, RequestLog
from bridge.sandbox.hubspot import account as hubspot
from bridge.sandbox.pipedrive import account as pipedrive
from bridge.sandbox.provider import MockProvider
from bridge.sandbox.salesforce import org as salesforce
from bridge.sandbox.smtp import MockSmtpServer
from bridge.sandbox.twilio import account as twilio
from bridge.sandbox.zendesk import account as zendesk

KEEP_ALIVE_SECONDS = 3600
"""Idle connections are kept longer than clients pool them, so that no client reuses a closing connection."""
_START_TIMEOUT_SECONDS = 10.0
_STOP_TIMEOUT_SECONDS = 5.0


class _AbortableProtocol(HttpToolsProtocol):
    """HTTP protocol that passes its transport to the application, so that a fault can close the connection."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class RunningSandbox:
    """All mock providers, listening on loopback. A context manager that stops the sandbox on exit."""

    def __init__(
        self,
        port: int = 0,
        smtp_port: int = 0,
        *,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.clock = clock = clock or Clock()
        self._faults = Faults()
        self._log = RequestLog()
        self.hubspot = hubspot.HubSpot(clock, self._faults)
        self.salesforce = salesforce.Salesforce(clock, self._faults)
        self.pipedrive = pipedrive.Pipedrive(clock, self._faults)
        self.zendesk = zendesk.Zendesk(clock, self._faults)
        self.twilio = twilio.Twilio(clock, self._faults)
        self.slack = slack.Slack(clock, self._faults)
        self.teams = teams.Teams(clock, self._faults)
        self.heppu = heppu.Heppu(clock, self._faults)
        self.email = EmailProvider(clock, self._faults, self._log)
        self._providers: dict[str, MockProvider] = {
            provider.name: provider
            for provider in (
                self.hubspot,
                self.salesforce,
                self.pipedrive,
                self.zendesk,
                self.twilio,
                self.slack,
                self.teams,
                self.heppu,
                self.email,
            )
        }
        self._tls = tls
        self._http_socket = _listen(port)
        try:
            self._smtp_socket = _listen(smtp_port)
        except OSError:
            self._http_socket.close()
            raise
        self.port: int = self._http_socket.getsockname()[1]
        self.smtp_port: int = self._smtp_socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)
        self._thread.start()
        if not self._started.wait(_START_TIMEOUT_SECONDS):
            raise RuntimeError("the sandbox did not start")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that point a bridge at this sandbox, for every provider."""
        return {
            "HUBSPOT_ACCESS_TOKEN": hubspot.ACCESS_TOKEN,
            "HUBSPOT_URL": f"{self.url}/hubspot",
            "SALESFORCE_URL": f"{self.url}/salesforce",
            "SALESFORCE_CONSUMER_KEY": salesforce.CONSUMER_KEY,
            "SALESFORCE_CONSUMER_SECRET": salesforce.CONSUMER_SECRET,
            "PIPEDRIVE_API_TOKEN": pipedrive.API_TOKEN,
            "PIPEDRIVE_URL": f"{self.url}/pipedrive",
            "ZENDESK_URL": f"{self.url}/zendesk",
            "ZENDESK_CLIENT_ID": zendesk.CLIENT_ID,
            "ZENDESK_CLIENT_SECRET": zendesk.CLIENT_SECRET,
            "TWILIO_ACCOUNT_SID": twilio.ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": twilio.AUTH_TOKEN,
            "TWILIO_API_KEY_SID": twilio.API_KEY_SID,
            "TWILIO_API_KEY_SECRET": twilio.API_KEY_SECRET,
            "TWILIO_FROM": twilio.NUMBER,
            "TWILIO_WHATSAPP_FROM": twilio.WHATSAPP_NUMBER,
            "TWILIO_URL": f"{self.url}/twilio",
            "EMAIL_SMTP_URL": f"smtp://127.0.0.1:{self.smtp_port}",
            "EMAIL_FROM": "Harbour Light <hello@harbourlight.example>",
            "SLACK_WEBHOOK_URL": f"{self.url}/slack{self.slack.webhook_path}",
            "TEAMS_WEBHOOK_URL": f"{self.url}/teams{self.teams.workflow_path}",
            "HEPPU_API_URL": f"{self.url}/heppu/api/v1",
            "HEPPU_API_KEY": heppu_requests.API_KEY,
        }

    @property
    def slack_bot_environment(self) -> dict[str, str]:
        """The environment of a bridge that posts to Slack as the bot of an app, instead of the webhook's."""
        return {
            "SLACK_BOT_TOKEN": slack_workspace.BOT_TOKEN,
            "SLACK_CHANNEL": "#team",
            "SLACK_URL": f"{self.url}/slack/api",
        }

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests received by any provider, oldest first."""
        return self._log.all()

    def requests_to(self, provider: str) -> list[RecordedRequest]:
        """Return the requests received by one provider, oldest first."""
        return self._log.all(provider)

    def clear_requests(self) -> None:
        """Remove the received requests. The state of the providers remains."""
        self._log.clear()

    def fault(
        self,
        provider: Literal[
            "hubspot", "salesforce", "pipedrive", "zendesk", "twilio", "slack", "teams", "heppu", "email"
        ],
        *,
        path: str = "*",
        method: str | None = None,
        times: int | None = 1,
        status: int | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
        delay: float | None = None,
        retry_after: float | None = None,
        drop: Literal["before", "after"] | None = None,
        hang: bool = False,
        response: HostileResponse | None = None,
        lag: float | None = None,
        quota: int | None = None,
    ) -> Fault:
        """Inject a failure of `provider`. See `faults.Fault` for the parameters."""
        return self._faults.add(
            Fault(
                provider=provider,
                path=path,
                method=method,
                times=times,
                status=status,
                body=body,
                headers=headers or {},
                delay=delay,
                retry_after=retry_after,
                drop=drop,
                hang=hang,
                response=response,
                lag=lag,
                quota=quota,
            )
        )

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def reset(self) -> None:
        """Reset all accounts, and remove all faults and requests."""
        self._faults.clear()
        for provider in self._providers.values():
            provider.reset()
        self._log.clear()

    def stop(self) -> None:
        """Close everything and wait for the thread to end. Stopping twice is allowed."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = AbortingServer(
            uvicorn.Config(
                self._application(self._stopping),
                http=_AbortableProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                backlog=2048,
            ),
            on_ready=self._started.set,
        )
        smtp_server = MockSmtpServer(self.email, self._tls)
        smtp = await self._loop.create_server(smtp_server.protocol, sock=self._smtp_socket)
        server_task = asyncio.create_task(server.serve(sockets=[self._http_socket]))
        await self._stopping.wait()
        smtp.close()
        smtp_server.abort()
        server.stop()
        await server_task

    def _application(self, stopping: asyncio.Event) -> Starlette:
        control = Control(self._providers, self._log, self._faults, self.reset)
        return Starlette(
            routes=[
                Mount("/_sandbox", routes=control.routes()),
                *(
                    Mount(f"/{name}", app=Gateway(provider, self._log, self._faults, stopping))
                    for name, provider in self._providers.items()
                ),
            ]
        )


def start_sandbox(
    port: int = 0, smtp_port: int = 0, *, clock: Clock | None = None, tls: ssl.SSLContext | None = None
) -> RunningSandbox:
    """Start the sandbox on loopback. Port 0 selects a free port.

    `clock` is the providers' clock (a test shares its own). With `tls`, the SMTP server offers STARTTLS. Raise
    OSError if a port is in use.
    """
    return RunningSandbox(port, smtp_port, clock=clock, tls=tls)


def _listen(port: int) -> socket.socket:
    # Without the protocol, asyncio leaves Nagle's algorithm on and every response takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener

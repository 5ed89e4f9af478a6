"""Egress: which certificate authorities the process trusts, and through which proxy it reaches providers.

Both are settings of the process, not of a connection: `configure_egress` is called once, before the first account is
opened. Every transport of `bridge.connector` asks here.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bridge.settings import Settings


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is the loopback interface, without asking DNS."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy that opens tunnels (CONNECT)."""

    url: str = field(repr=False)
    """With user and password, if it needs them."""

    @property
    def address(self) -> str:
        """The URL without user and password."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    @property
    def login(self) -> tuple[str, str] | None:
        """User and password."""
        parts = urlsplit(self.url)
        return None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))


@dataclass(frozen=True)
class Egress:
    """How requests leave this process."""

    ca_file: Path | None = None
    """Certificates that are trusted in addition to the public authorities."""
    proxy: Proxy | None = None
    no_proxy: tuple[str, ...] = ()
    """Hosts, domains with their subdomains, and networks that are reached without the proxy."""

    def proxy_for(self, host: str) -> Proxy | None:
        """Return the proxy for a host. This machine itself is always reached without one."""
        if self.proxy is None or is_loopback(host) or any(_covers(entry, host) for entry in self.no_proxy):
            return None
        return self.proxy


_current = Egress()


def configure_egress(settings: Settings) -> None:
    """Use these settings for every transport that is created from now on."""
    proxy = settings.bridge_https_proxy
    use_egress(
        Egress(
            settings.bridge_ca_file,
            Proxy(proxy.get_secret_value()) if proxy is not None else None,
            settings.bridge_no_proxy,
        )
    )


def use_egress(egress: Egress) -> None:
    """Use this for every transport that is created from now on."""
    global _current
    _current = egress


def proxy_for(host: str) -> Proxy | None:
    """Return the proxy through which a host is reached; None for a direct connection."""
    return _current.proxy_for(host)


def tls_context() -> ssl.SSLContext:
    """Return the TLS context of HTTP requests, shared because reading the certificates takes longer than a request."""
    return _tls_context(_current.ca_file)


def add_private_ca(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let a context also trust the certificates of BRIDGE_CA_FILE, and return it."""
    if _current.ca_file is not None:
        context.load_verify_locations(_current.ca_file)
    return context


@cache
def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    import httpx

    if ca_file is None:
        return httpx.create_ssl_context()
    context = ssl.create_default_context(cafile=str(ca_file))
    for certificate in httpx.create_ssl_context().get_ca_certs(binary_form=True):
        context.load_verify_locations(cadata=certificate)
    return context


def _covers(entry: str, host: str) -> bool:
    """Return whether an entry of BRIDGE_NO_PROXY stands for a host."""
    host, entry = host.strip("[]").rstrip(".").lower(), entry.lower()
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        domain = entry.removeprefix("*").removeprefix(".")
        return host == domain or host.endswith(f".{domain}")

"""Requests to hosts from a rule or a webhook: only to addresses that have been verified.

A host name can resolve to an address of the internal network, and to another one the next time. The name is therefore
resolved once, and the request goes to a verified address, with the name in `Host` and in the TLS handshake. Through a
proxy, the proxy resolves the name: names that resolve to private addresses here are still refused.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from bridge.connector.egress import is_loopback, proxy_for
from bridge.errors import PermanentError, TransientError
from bridge.lazy import LazyModule

if TYPE_CHECKING:
    import httpx
else:
    httpx = LazyModule("httpx")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


def is_public(address: Address) -> bool:
    """Return whether an address is one host of the public internet, also if it stands for an IPv4 address.

    An IPv6 address must be global unicast, and not of 6to4, which leads to an IPv4 address; NAT64 counts as the IPv4
    address in it, because networks without IPv4 resolve every name to NAT64.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        return address in _GLOBAL_UNICAST and address not in _6TO4 and address.is_global
    return address.is_global and not address.is_multicast


def resolve_host(host: str, *, allow_private: bool = False, advice: str = "") -> list[Address]:
    """Return the addresses of a host name, without private ones unless `allow_private`.

    An IP address is returned as it is. `advice` says how a private address can be allowed. A name that does not resolve
    is left to the proxy if there is one. Raise TransientError if DNS has no answer, and PermanentError if all addresses
    are private, or if the name cannot be one.
    """
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    try:
        resolved = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise PermanentError("the URL's host is not a valid host name", code="host") from error
    except OSError as error:
        if proxy_for(host) is not None:
            return []
        raise TransientError("the URL's host does not resolve in DNS", reason="network") from error
    addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in resolved]
    if not allow_private and not is_loopback(host):
        addresses = [address for address in addresses if is_public(address)]
    if not addresses:
        raise PermanentError(
            "; ".join(filter(None, ("the URL's host resolves to a private address", advice))), code="host"
        )
    return addresses


def send_to_verified(
    client: httpx.Client,
    method: str,
    url: httpx.URL,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
    allow_private: bool = False,
    advice: str = "",
) -> httpx.Response:
    """Send a request to a verified address of the URL's host. Return the response, whose body has not been read.

    The caller has decided that the host is allowed, and closes the response. The `client` must keep no connections:
    one that was opened for a host could be reused for another host at the same address.
    """
    addresses = resolve_host(url.host, allow_private=allow_private, advice=advice)
    if proxy_for(url.host) is not None:
        request = client.build_request(method, url, content=content, headers=headers)
        return client.send(request, stream=True)
    return _send_to_first_reachable(
        client,
        (
            client.build_request(
                method,
                url.copy_with(host=str(address)),
                content=content,
                headers={**headers, "Host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": url.host},
            )
            for address in addresses
        ),
    )


def _send_to_first_reachable(client: httpx.Client, requests: Iterable[httpx.Request]) -> httpx.Response:
    """Return the response of the first address that accepts a connection."""
    last_error: httpx.TransportError = httpx.ConnectError("no address")
    for request in requests:
        try:
            return client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            last_error = error
    raise last_error

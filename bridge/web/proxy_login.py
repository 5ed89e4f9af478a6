"""Logins at a reverse proxy: it passes the name of the user in a header, which nobody else can set.

Such proxies (oauth2-proxy, Authelia, Pomerium, Tailscale) connect the bridge to a company's single sign-on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from bridge.setting_types import IpNetwork
from bridge.web.access import Access, Principal
from bridge.web.rejection_log import is_from_proxy

MAX_NAME: Final = 100
"""Characters of the name of a user."""


@dataclass(frozen=True)
class ProxyLogin:
    """The header (BRIDGE_AUTH_HEADER) and the proxies that are believed."""

    header: str | None = None
    trusted_proxies: Sequence[IpNetwork] = ()

    def principal(self, request: Request) -> Principal | None:
        """Return who the proxy says sent the request; None if it says nothing, or another sender says so.

        With two such headers, a client may have sent one of them, so neither is believed.
        """
        if self.header is None or not is_from_proxy(request.scope, self.trusted_proxies):
            return None
        values = [value.strip() for value in request.headers.getlist(self.header)]
        if len(values) != 1 or not 0 < len(values[0]) <= MAX_NAME or not values[0].isprintable():
            return None
        return Principal(Access.ADMIN, values[0])

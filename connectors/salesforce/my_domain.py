"""The address of an org: recognizes Salesforce's other addresses, and names the My Domain that belongs to them."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, TypeAdapter

from bridge.connector import ProviderUrl, is_loopback

_FIND_IT = "find it in Setup, My Domain (Current My Domain URL)"
_LABEL = r"(?P<label>[a-z0-9][a-z0-9-]*?)"
_KIND = r"(?P<kind>(?:\.(?:sandbox|develop|scratch|demo|patch|stage|free|trailblaze|wave))?)"
"""Partition of the host name: orgs that are not production have one, such as `acme--uat.sandbox.my.salesforce.com`."""
_OTHER_ADDRESSES = (
    (rf"{_LABEL}{_KIND}\.lightning\.force\.com", "the address of Lightning Experience"),
    (rf"{_LABEL}{_KIND}\.my\.salesforce-setup\.com", "the address of Setup"),
    (
        rf"{_LABEL}--[a-z0-9_]+{_KIND}(?:\.[a-z]+\d+)?\.(?:vf|visual|content)\.force\.com",
        "a Visualforce address",
    ),
    (rf"{_LABEL}{_KIND}\.file\.force\.com", "an address of files"),
    (rf"{_LABEL}{_KIND}\.my\.(?:site|salesforce-sites)\.com", "the address of a site"),
    (
        rf"{_LABEL}{_KIND}\.(?:builder|preview|live-preview)\.salesforce-experience\.com",
        "the address of a site",
    ),
    (rf"{_LABEL}{_KIND}(?:\.secure)?\.force\.com", "the address of a site"),
)
"""Host names with the My Domain name in them, and a description of each."""
_SHARED_HOSTS = re.compile(
    r"(?:login|test|www|help|admin|welcome|[a-z]{2,4}\d+)\.salesforce\.com|salesforce\.com"
)
"""Hosts that many orgs share: the login pages, and instances such as na139."""


def my_domain_of(host: str) -> tuple[str, str] | None:
    """Return the My Domain host that belongs to another address of an org, and what that address is.

    Return None if `host` is not such an address.
    """
    for pattern, description in _OTHER_ADDRESSES:
        match = re.fullmatch(pattern, host)
        if match:
            # A sandbox is named `acme--uat`. Its My Domain contains `.sandbox`, older addresses of it do not.
            kind = match["kind"] or (".sandbox" if "--" in match["label"] else "")
            return f"{match['label']}{kind}.my.salesforce.com", description
    match = re.fullmatch(r"([a-z0-9][a-z0-9-]*)\.(?:salesforce|cloudforce)\.com", host)
    return (f"{match[1]}.my.salesforce.com", "an old form of the address") if match else None


def _my_domain_url(value: str) -> str:
    """Return the My Domain URL of an org. Raise ValueError with the corrected URL for any other address of it."""
    text = value.strip()
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        host = ""
    if is_loopback(host):
        return TypeAdapter(ProviderUrl).validate_python(value)
    if _SHARED_HOSTS.fullmatch(host):
        raise ValueError(
            f"{host} is the same for all orgs: set it to the org's My Domain URL, like "
            f"https://acme.my.salesforce.com; {_FIND_IT}"
        )
    if host.endswith(".my.salesforce.com"):
        url = f"https://{host}"
        if text.rstrip("/").lower() != url:
            raise ValueError(f"set it to {url}, without path, port or user name")
        return url
    other = my_domain_of(host)
    if other:
        my_domain, description = other
        raise ValueError(
            f"{host} is {description}, not the org's My Domain URL: set it to https://{my_domain} ({_FIND_IT})"
        )
    return TypeAdapter(ProviderUrl).validate_python(value)


MyDomainUrl = Annotated[str, AfterValidator(_my_domain_url)]
"""My Domain URL of an org, such as `https://acme--uat.sandbox.my.salesforce.com`."""

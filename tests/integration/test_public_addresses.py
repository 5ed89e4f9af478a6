"""Addresses that a host name of `http.post` may resolve to."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.connector import is_public
from bridge.errors import PermanentError
from bridge.testing import connect, load_connector

PUBLIC = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"]
OTHERS = [
    *("10.0.0.8", "100.64.0.1", "127.0.0.1", "169.254.169.254", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
    *("255.255.255.255", "0.0.0.0", "::", "::1", "::ffff:10.0.0.8", "::ffff:93.184.216.34", "::10.0.0.8"),
    *("2002:a00:8::1", "2002:5db8:d822::1", "2001:0:a00:8::1", "2001:db8::1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b::e000:1", "64:ff9b:1::a00:8", "fd00::1", "fe80::1", "fec0::1", "ff02::1", "ff0e::1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OTHERS)
def test_address_that_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_ipv6_address_that_stands_for_a_private_one_is_not_public(
    address: ipaddress.IPv4Address,
) -> None:
    number = int(address)
    embedded = {
        "mapped": 0xFFFF << 32 | number,
        "compatible": number,
        "translated": 0xFFFF << 48 | number,
        "6to4": 0x2002 << 112 | number << 80 | 1,
        "nat64": 0x0064FF9B << 96 | number,
    }
    for kind, value in embedded.items():
        expected = kind == "nat64" and is_public(address)
        assert is_public(ipaddress.IPv6Address(value)) == expected, kind


@pytest.mark.parametrize("address", ["2002:a00:8::1", "64:ff9b::a9fe:a9fe", "224.0.0.1"])
def test_host_name_of_such_an_address_is_rejected(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(family, socket.SOCK_STREAM, 6, "", (address, 0))]
    )
    settings = {"HTTP_ALLOWED_HOSTS": "erp.example.com", "HTTP_SECRET": "whsec_" + "A" * 32}
    with (
        connect(load_connector("http"), settings) as sender,
        pytest.raises(PermanentError, match="HTTP_ALLOW_PRIVATE"),
    ):
        sender.run("post", {"url": "https://erp.example.com/heppu"})

"""CSV files of opt-outs, as spreadsheets and CRMs export them."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import ConfigError
from bridge.store.opt_out_csv import MAX_LINE, ImportedLine, read_opt_outs, write_opt_outs

PHONE = "+14155550123"
PHONE_CHANNELS = ("sms", "whatsapp", "call")


def read(content: bytes | str, country: str | None = None) -> list[ImportedLine]:
    raw = content.encode() if isinstance(content, str) else content
    return list(read_opt_outs(io.BufferedReader(io.BytesIO(raw)), country))


def addresses(lines: list[ImportedLine]) -> list[tuple[str, tuple[str, ...], str | None]]:
    assert [line.problem for line in lines if line.problem] == []
    return [(line.address, tuple(line.channels), line.reason) for line in lines]


@pytest.mark.parametrize(
    "content",
    [
        f"{PHONE}\n",
        f"address\n{PHONE}\n",
        f"Phone Number\r\n{PHONE}\r\n",
        f"\ufeffaddress;channel;reason\n{PHONE};;\n",
        f"name\taddress\nMaya\t{PHONE}\n",
        'address,channel\n"+1 (415) 555-0123",\n',
        f'sep=;\naddress;channel\n="{PHONE}";\n',
        f"address\n'{PHONE}\n",
        f"address\n\n{PHONE}\n,,,\n",
        f"address\n{PHONE}".encode("utf-16"),
        f"\r\naddress,note\r\n{PHONE},".encode(),
    ],
)
def test_usual_exports_are_read(content: bytes | str) -> None:
    assert addresses(read(content)) == [(PHONE, PHONE_CHANNELS, None)]


def test_every_column_with_addresses_is_read() -> None:
    lines = read(
        '"Name","Phone","MobilePhone","Email"\n'
        f'"Maya","{PHONE}","(415) 555-0124","maya@lindqvist.example"\n"Ada","","","ada@engine.example"\n',
        "US",
    )
    assert addresses(lines) == [
        (PHONE, PHONE_CHANNELS, None),
        ("+14155550124", PHONE_CHANNELS, None),
        ("maya@lindqvist.example", ("email",), None),
        ("ada@engine.example", ("email",), None),
    ]
    assert [line.number for line in lines] == [2, 2, 2, 3]


def test_channel_of_a_line_applies_to_the_addresses_that_have_it() -> None:
    assert addresses(read(f"phone,email,channel\n{PHONE},ada@engine.example,sms\n")) == [
        (PHONE, ("sms",), None)
    ]


def test_unreadable_address_does_not_hide_the_other_one_of_its_line() -> None:
    bad, good = read("phone,email\n+1415555,ada@engine.example\n")
    assert "too short" in (bad.problem or "")
    assert good.address == "ada@engine.example"


def test_line_breaks_in_a_cell_start_no_new_line() -> None:
    lines = read(
        f'address,channel,reason\n{PHONE},sms,"said ""stop"",\ncall\n+14155550999"\n+14155550124,sms,\n'
    )
    assert addresses(lines) == [
        (PHONE, ("sms",), 'said "stop", call +14155550999'),
        ("+14155550124", ("sms",), None),
    ]
    assert [line.number for line in lines] == [2, 5]


@pytest.mark.parametrize("rest", [f"{PHONE}\n", f"{PHONE}\n" * 1000, ""])
def test_missing_closing_quote_hides_no_other_line(rest: str) -> None:
    bad, *others = read(f'address,reason\n"+14155550999,x\n{rest}')
    assert (bad.number, bad.problem is not None) == (2, True)
    assert addresses(others) == [(PHONE, PHONE_CHANNELS, None)] * rest.count("\n")


def test_cell_without_a_column_is_not_ignored() -> None:
    [line] = read("address\nada@engine.example, maya@lindqvist.example\n")
    assert "more than 1 cell:" in (line.problem or "")


def test_unknown_headings_are_named_as_such() -> None:
    heading, line = read(f"Rufnummer\n{PHONE}\n")
    assert "if these are headings, name the column `address`" in (heading.problem or "")
    assert line.address == PHONE


def test_channel_and_reason_are_read() -> None:
    lines = read(f'{PHONE},sms,"our list, November"\nMAYA@Lindqvist.example,EMAIL\n')
    assert addresses(lines) == [
        (PHONE, ("sms",), "our list, November"),
        ("maya@lindqvist.example", ("email",), None),
    ]


def test_windows_1252_is_read() -> None:
    [line] = read(f"address,reason\n{PHONE},gew\xfcnscht \u20ac\n".encode("cp1252"))
    assert line.reason == "gew\xfcnscht \u20ac"


def test_national_numbers_need_the_default_country() -> None:
    assert addresses(read("address\n(415) 555-0123\n", "US")) == [(PHONE, PHONE_CHANNELS, None)]
    [line] = read("address\n(415) 555-0123\n")
    assert "BRIDGE_DEFAULT_COUNTRY" in (line.problem or "")


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("+1415555", "is too short for a number of +1"),
        ("+141555501234", "is too long for a number of +1"),
        ("1.41555E+10", "format the column as text"),
        ("Maya Lindqvist", "is neither a phone number"),
        ("maya@", "is not a valid email address"),
        ("maya@lindqvist.example,sms", "channel must be `email` or empty"),
        (f"{PHONE},fax", "channel must be `sms`, `whatsapp`, `call` or empty"),
        (f"{PHONE},Maya", "name them in the first line"),
        (",sms", "has no address"),
        ("+" * (MAX_LINE + 10), "is longer than"),
    ],
)
def test_unreadable_line_is_reported_with_its_number(cell: str, problem: str) -> None:
    first, bad, last = read(f"{PHONE}\n{cell}\n{PHONE}\n")
    assert (first.number, bad.number, last.number) == (1, 2, 3)
    assert problem in (bad.problem or "")
    assert "Maya Lindqvist" not in (bad.problem or "")
    assert last.address == PHONE


def test_headings_without_an_address_are_an_error() -> None:
    with pytest.raises(ConfigError, match="no column `address`"):
        read(f"channel,telefon\nsms,{PHONE}\n")


def test_export_is_read_again_without_undeliverable_and_erased_addresses() -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    entry = {
        "id": "opt_1", "kind": "opt_out", "channel": "sms", "address": PHONE, "since": now, "until": None,
        "source": "import", "actor": "ada@host", "reason": "=HYPERLINK(1)",
    }  # fmt: skip
    stream = io.StringIO()
    erased = {**entry, "address": "erased:abc"}
    undeliverable = {**entry, "kind": "undeliverable", "until": now, "actor": None, "reason": "landline"}
    write_opt_outs(stream, [entry, erased, undeliverable])
    assert "'=HYPERLINK" in stream.getvalue()
    first, *skipped = read(stream.getvalue())
    assert (first.address, tuple(first.channels)) == (PHONE, ("sms",))
    assert [line.skipped for line in skipped] == [True, True]


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_no_file_raises_an_unexpected_error(content: bytes) -> None:
    try:
        lines = read(content)
    except ConfigError:
        return
    assert all(line.address or line.problem or line.skipped for line in lines)

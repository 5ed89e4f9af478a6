"""`PhoneNumber` and `Email` params: any spelling is accepted, and becomes the canonical address."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bridge.connector import Email, Params, PhoneNumber
from bridge.connector.params import DEFAULT_COUNTRY


class MessageParams(Params):
    """Params of a message."""

    to: PhoneNumber | None = None
    reply_to: Email | None = None


@pytest.mark.parametrize("spelling", ["+44 (0)7911 123456", "0044 7911 123456", "tel:+44-7911-123456;ext=2"])
def test_phone_param_becomes_e164(spelling: str) -> None:
    assert MessageParams(to=spelling).to == "+447911123456"


def test_national_phone_param_needs_the_country_of_the_event() -> None:
    values = {"to": "07911 123456"}
    params = MessageParams.model_validate(values, context={DEFAULT_COUNTRY: "GB"})
    assert params.to == "+447911123456"
    for context, advice in (
        ({DEFAULT_COUNTRY: None}, "or set BRIDGE_DEFAULT_COUNTRY"),
        ({DEFAULT_COUNTRY: "US"}, "is not a phone number"),
        (None, "and the country code, like"),
    ):
        with pytest.raises(ValidationError, match=advice):
            MessageParams.model_validate(values, context=context)


def test_withheld_number_is_not_a_phone_param() -> None:
    with pytest.raises(ValidationError, match="placeholder for a withheld number"):
        MessageParams(to="+266696687")


def test_error_contains_no_part_of_the_number() -> None:
    with pytest.raises(ValidationError) as error:
        MessageParams(to="+1 212 987 6543 or +1 212 987 6544")
    assert "987" not in str(error.value)


def test_email_param_becomes_canonical() -> None:
    assert MessageParams(reply_to="Ada@EXAMPLE.com").reply_to == "Ada@example.com"

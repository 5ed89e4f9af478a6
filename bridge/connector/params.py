"""Params of an action and settings of a connection: the models that a connector declares."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, WithJsonSchema
from pydantic.fields import FieldInfo

from bridge.connector.texts import ELLIPSIS, shorten
from bridge.contacts.email import normalize_email
from bridge.contacts.phone import is_withheld, normalize_phone, phone_problem
from bridge.settings import EnvironmentModel

MarkupLanguage = Literal["html", "slack", "markdown", "plain"]
"""The language of a param whose text may contain markup; `slack` is Slack's mrkdwn. `plain` is text without markup for
a service that is unknown here, and may find mentions and links in it."""
DEFAULT_COUNTRY = "default_country"
"""Key of the validation context of Params: the country whose national phone numbers are understood."""


def _phone(value: str, info: ValidationInfo) -> str:
    country = info.context.get(DEFAULT_COUNTRY) if info.context else None
    number = normalize_phone(value, country)
    if number is None:
        raise ValueError(
            phone_problem(value, country)
            if info.context or is_withheld(value)
            else "is not a phone number with + and the country code, like +14155550123"
        )
    return number


def _email(value: str) -> str:
    address = normalize_email(value)
    if address is None:
        raise ValueError("is not one valid email address: write the address alone, like ines@okafor.example")
    return address


PhoneNumber = Annotated[str, AfterValidator(_phone), WithJsonSchema({"type": "string", "format": "phone"})]
"""A phone number in any spelling, which becomes E.164; not checked against numbering plans.

National numbers are understood in what a rule renders for an event, if BRIDGE_DEFAULT_COUNTRY is set.
"""
Email = Annotated[str, AfterValidator(_email), WithJsonSchema({"type": "string", "format": "email"})]
"""Exactly one email address, which becomes its canonical form: the domain in ASCII by IDNA 2008."""


class ConnectorSettings(EnvironmentModel):
    """A connection's settings, read from variables prefixed with the connection's name in capitals.

    `bridge connectors show` prints a field's docstring as the description of its variable. Every connection has the
    two settings of this class; `Connector.limits_of` combines them with the connector's own limits.
    """

    per_second: float | None = Field(None, gt=0, le=1000)
    """Requests per second, of all processes together."""
    concurrency: int | None = Field(None, ge=1, le=64)
    """Concurrent attempts in one worker."""

    @classmethod
    def ordered_fields(cls) -> dict[str, FieldInfo]:
        """Return the fields: those of the connector, then those that every connection has."""
        own = {
            name: info
            for name, info in cls.model_fields.items()
            if name not in ConnectorSettings.model_fields
        }
        return own | cls.model_fields

    @classmethod
    def prefix(cls, connection: str) -> str:
        """Return the prefix of the connection's variables: `twilio_eu` -> `TWILIO_EU_`."""
        return connection.upper().replace("-", "_") + "_"


class Params(BaseModel):
    """The parameters that a rule sets under `with:`.

    Unknown names are errors. Values are validated when the rules are loaded and again when they are rendered.
    A number for a string param is converted to a string, as in `subject: "{{ event.messageCount }}"`. Whitespace around
    a string is removed, because a template with `{% if %}` on lines of its own begins and ends with some.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        coerce_numbers_to_str=True,
        str_strip_whitespace=True,
    )


def param(
    default: Any,
    description: str,
    *,
    example: Any = None,
    markup: MarkupLanguage | None = None,
    team_only: bool = False,
    must_be: str | None = None,
    truncate: int | None = None,
    **constraints: Any,
) -> Any:
    """Return a field of a Params model.

    `default` is a value, `...` for a required param, or a template of the event (`"{{ contact.phone }}"`). A rule
    may omit a param with a template; if the event lacks the value, the param is None, or an error if its type
    forbids None. In a param with a `markup` language, values of
    the event are escaped: only the rule's own text can contain markup. `must_be` describes what `pattern` accepts, for
    error messages: "a HubSpot ticket ID (digits only)". A rule can set a `team_only` param only in a message whose
    recipient it names itself, and only without a template. A text that is longer than `truncate` characters is cut and
    ends in `…`; the result says so. HTML and Slack's markup cannot be cut. `constraints` are pydantic's
    (`max_length=1600`, which is an error, `ge=0`).
    """
    if truncate is not None and markup in ("html", "slack"):
        raise TypeError(
            f"truncate may cut a tag of {markup} in half: set max_length, or shorten it in the action"
        )
    extra: dict[str, Any] = {"example": example}
    if must_be is not None:
        extra["must_be"] = must_be
    if markup:
        extra["markup"] = markup
    if team_only:
        extra["team_only"] = True
    if isinstance(default, str) and "{{" in default:
        extra["template"] = default
        default = None
    if truncate is not None:
        extra["truncate"] = truncate
    info: FieldInfo = Field(default, description=description, json_schema_extra=extra, **constraints)
    if truncate is not None:
        info.metadata.append(AfterValidator(partial(_cut, max_length=truncate)))
    return info


def _cut(value: Any, max_length: int) -> Any:
    return shorten(value, max_length) if isinstance(value, str) else value


def template_of(info: FieldInfo) -> str | None:
    """Return the default template of a param, if it has one."""
    extra = info.json_schema_extra
    source = extra.get("template") if isinstance(extra, dict) else None
    return source if isinstance(source, str) else None


def markup_of(info: FieldInfo) -> MarkupLanguage | None:
    """Return the markup language of a param, in which template values are escaped."""
    extra = info.json_schema_extra
    return cast(MarkupLanguage | None, extra.get("markup")) if isinstance(extra, dict) else None


def truncation_of(info: FieldInfo) -> int | None:
    """Return the number of characters to which longer texts of a param are cut."""
    extra = info.json_schema_extra
    length = extra.get("truncate") if isinstance(extra, dict) else None
    return length if isinstance(length, int) else None


@lru_cache(maxsize=512)
def _truncations(model: type[Params]) -> Mapping[str, int]:
    lengths = {name: truncation_of(info) for name, info in model.model_fields.items()}
    return {name: length for name, length in lengths.items() if length is not None}


def truncation_notes(params: Params) -> list[str]:
    """Return a note for each param that was cut: such a text has its full length and ends in an ellipsis."""
    return [
        f"{name} cut to {length:,} characters"
        for name, length in _truncations(type(params)).items()
        if isinstance(value := getattr(params, name), str)
        and len(value) == length
        and value.endswith(ELLIPSIS)
    ]


def is_team_only(info: FieldInfo) -> bool:
    """Return whether a param belongs to messages to the team only."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and extra.get("team_only") is True


def example_of(info: FieldInfo) -> Any:
    """Return the example of a param."""
    extra = info.json_schema_extra
    return extra.get("example") if isinstance(extra, dict) else None


def form_of(info: FieldInfo) -> str:
    """Return a description of the values that the pattern of a param accepts."""
    extra = info.json_schema_extra
    form = extra.get("must_be") if isinstance(extra, dict) else None
    return form if isinstance(form, str) else "of another form"


def allows_none(info: FieldInfo) -> bool:
    """Return whether a param may be None."""
    return type(None) in get_args(info.annotation)


def number_to_text(info: FieldInfo, value: Any) -> Any:
    """Return a number for a param of texts as a text, as validation does: IDs are often written without quotes."""
    kinds = get_args(info.annotation) or (info.annotation,)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and str in kinds and int not in kinds and float not in kinds else value

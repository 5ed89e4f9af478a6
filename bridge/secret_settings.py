"""Secrets in settings: lengths, several values during a rotation, named tokens, and secrets in files.

An error says what to do, and never repeats a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, get_args

from pydantic import BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

MIN_SECRET_LENGTH: Final = 16
"""Characters. A shorter secret can be guessed, and is an error."""
STRONG_SECRET_LENGTH: Final = 32
"""Characters. A shorter secret is a warning."""
MAX_SECRET_FILE: Final = 64 * 1024
"""Bytes of a file with a secret."""
FILE_SUFFIX: Final = "_FILE"

_NAMED_TOKEN = re.compile(r"([A-Za-z][A-Za-z0-9_.-]{0,31}):(.+)", re.DOTALL)


@dataclass(frozen=True)
class AccessToken:
    """A token of the dashboard, the API or the metrics."""

    name: str | None
    """Who uses it, for the audit log; None if the setting names nobody."""
    token: SecretStr


def split_secrets(text: str) -> list[str]:
    """Return the secrets in a comma-separated list. Raise ValueError if one is empty or too short."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError("has an empty part: separate secrets by one comma; a secret cannot contain a comma")
    _check_lengths(parts)
    return parts


def _check_lengths(parts: list[str]) -> None:
    for number, part in enumerate(parts, 1):
        if len(part) < MIN_SECRET_LENGTH:
            of_part = f" in each part, and part {number} has fewer" if len(parts) > 1 else ""
            hint = "; a secret cannot contain a comma" if len(parts) > 1 else ""
            raise ValueError(
                f"needs at least {MIN_SECRET_LENGTH} characters{of_part}, so that it cannot be guessed{hint}"
            )


def _parse_secrets(value: object) -> object:
    return tuple(SecretStr(part) for part in split_secrets(value)) if isinstance(value, str) else value


def _parse_tokens(value: object) -> object:
    """Parse `TOKEN`, `NAME:TOKEN`, or several, separated by commas."""
    if not isinstance(value, str):
        return value
    tokens = []
    for part in split_secrets(value):
        named = _NAMED_TOKEN.fullmatch(part)
        name, token = (named[1], named[2].strip()) if named else (None, part)
        tokens.append(AccessToken(name, SecretStr(token)))
    _check_lengths([token.token.get_secret_value() for token in tokens])
    return tuple(tokens)


Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_parse_secrets)]
"""One secret, or several during a rotation, separated by commas: the first one is used for what is new."""
AccessTokens = Annotated[tuple[AccessToken, ...], BeforeValidator(_parse_tokens)]
"""Tokens, separated by commas, each with the name of its user before a colon or without."""


def is_secret(info: FieldInfo) -> bool:
    """Return whether a setting contains a secret."""
    return not info.repr or _contains_secret(info.annotation)


def _contains_secret(annotation: Any) -> bool:
    return annotation in (SecretStr, AccessToken) or any(map(_contains_secret, get_args(annotation)))


def read_secret_files(
    secrets: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the secrets that stand in files, and the errors, each by field.

    `secrets` maps fields to variables. The path of the file is in the variable with `_FILE` at its end, as container
    platforms mount secrets.
    """
    values, errors = {}, {}
    for field, name in secrets.items():
        path = environ.get(name + FILE_SUFFIX)
        if not path:
            continue
        if environ.get(name):
            errors[field] = f"set {name} or {name}{FILE_SUFFIX}, not both"
            continue
        try:
            values[field] = _read(Path(path))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            errors[field] = f"{name}{FILE_SUFFIX}: cannot read the secret from this file: {reason}"
    return values, errors


def _read(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_SECRET_FILE + 1)
    if len(content) > MAX_SECRET_FILE:
        raise ValueError(f"it has more than {MAX_SECRET_FILE // 1024} KiB")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    if not text:
        raise ValueError("it is empty")
    return text


WEAK_SECRET_ADVICE: Final = (
    f"use {STRONG_SECRET_LENGTH} or more random characters, such as the output of "
    "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
)


def is_weak(secret: str) -> bool:
    """Return whether a secret is valid, but short or made of few different characters."""
    return len(secret) < STRONG_SECRET_LENGTH or len(set(secret)) < MIN_SECRET_LENGTH // 2

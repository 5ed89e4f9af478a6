"""Unrecognized variables: a misspelled setting would be silently ignored, so it is reported, with a suggestion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from bridge.settings import Settings

_OWN_PREFIXES = ("BRIDGE_", "HEPPU_")
_HEPPU_API_VARIABLE = re.compile(r"HEPPU_(\w+_)?API_(KEY|KEY_FILE|URL)")
"""Variables read by `bridge heppu` and by connections of the `heppu` connector."""


def unrecognized_variables(environ: Mapping[str, str], known: Iterable[str] = ()) -> dict[str, str]:
    """Return variables that look like settings but are not read -> advice, so that a misspelling does not go unnoticed.

    A variable with one of the bridge's prefixes is always reported. Other variables may belong to the platform; they
    are reported only if they are a near match of an unset setting or an unset variable in `known`.
    """
    names = {
        *Settings.variables(""),
        *("HEPPU_API_KEY", "HEPPU_API_URL"),
        *known,
    }
    advice = {}
    for name in sorted(environ):
        if not environ[name] or name in names or _HEPPU_API_VARIABLE.fullmatch(name):
            continue
        is_own = name.upper().startswith(_OWN_PREFIXES)
        match = next(iter(get_close_matches(name.upper(), names, 1, 0.75 if is_own else 0.9)), None)
        if match and (is_own or not environ.get(match)):
            advice[name] = f"did you mean {match}?"
        elif is_own:
            advice[name] = "docs/operations.md lists the variables"
    return advice

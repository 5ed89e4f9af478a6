"""Changes of rules: tells whether another version of a rules file has the same rule. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from bridge.rules.sources import split_sources
from bridge.rules.yaml import Diagnostics, TooManyDiagnostics, parse

_NOT_COMPARED = ("description", "enabled", "shadow")
"""Keys of a rule that say nothing about what it sends."""


@lru_cache(maxsize=16)
def rule_definitions(text: str) -> Mapping[str, str]:
    """Return the name and the definition of each rule of a file that was valid once.

    A definition is equal in two files if the rule would create the same deliveries: it contains the rule's entries of
    `defaults` and, if either mentions a table, `tables`.
    """
    files = [_data(file.content) for file in split_sources(text, "") if isinstance(file.content, str)]
    shared = {
        key: {name: value for data in files for name, value in (data.get(key) or {}).items()}
        for key in ("defaults", "tables")
    }
    rules = [rule for data in files for rule in data.get("rules") or () if "name" in rule]
    return {str(rule["name"]): _definition(rule, shared) for rule in rules}


def _data(text: str) -> Mapping[str, Any]:
    try:
        root = parse(text.removeprefix("\ufeff"), Diagnostics())
    except TooManyDiagnostics:
        root = None
    data = root.data() if root is not None else None
    return data if isinstance(data, dict) and isinstance(data.get("rules", []), list) else {}


def _definition(rule: Mapping[str, Any], shared: Mapping[str, Mapping[str, Any]]) -> str:
    own = {key: value for key, value in rule.items() if key not in _NOT_COMPARED}
    definition: dict[str, Any] = {"rule": own}
    defaults = shared["defaults"]
    definition["defaults"] = {use: defaults[use] for use in _actions(rule) if use in defaults}
    if "table" in json.dumps(definition):
        definition["tables"] = shared["tables"]
    return json.dumps(definition, sort_keys=True)


def _actions(rule: Mapping[str, Any]) -> Iterator[str]:
    for key in ("do", "on_success", "on_failure"):
        steps = rule.get(key) or []
        for step in steps if isinstance(steps, list) else [steps]:
            if isinstance(step, dict) and isinstance(step.get("use"), str):
                yield step["use"]

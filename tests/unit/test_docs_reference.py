"""docs/reference is generated from the code: every page is up to date, and nothing on it is left without a meaning."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

import bridge.connector
import bridge.testing
from bridge.errors import Reason
from bridge.lifecycle import FailureReason
from bridge.rules.keys import STRING, Key, Section
from bridge.store import schema

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()


@pytest.mark.parametrize("name", GENERATOR.PAGES)
def test_page_is_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == GENERATOR.page(name), "run `make docs`"


def test_tables_of_rules_reference_are_up_to_date() -> None:
    text = GENERATOR.RULES_REFERENCE.read_text("utf-8")
    assert text == GENERATOR.rules_reference(text), "run `make docs`"


def test_key_table_lists_every_key_and_omits_empty_columns() -> None:
    section = Section(
        "a meal", "", (Key("dish", STRING, "the dish", example="soup"), Key("drink", STRING, "the drink"))
    )
    from rules_tables import key_table  # on the path of the generator

    assert list(key_table(section)) == [
        "| Key | Meaning | Example |",
        "| --- | --- | --- |",
        "| `dish` | the dish | `soup` |",
        "| `drink` | the drink |  |",
        "",
    ]


@pytest.mark.parametrize("name", GENERATOR.PAGES)
def test_every_row_has_a_meaning(name: str) -> None:
    header: list[str] = []
    for line in (FOLDER / name).read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header = []
        elif not header:
            header = cells
        elif "Meaning" in header and not set(cells[0]) <= {"-"}:
            assert cells[header.index("Meaning")], f"{name}: {cells[0]} has no meaning"


def test_failure_reasons_are_those_of_the_connector_api() -> None:
    assert tuple(FailureReason) == get_args(Reason)


def test_every_table_is_described() -> None:
    assert [item.name for item in schema.metadata.sorted_tables if not item.info.get("doc")] == []


def test_every_name_of_the_connector_api_is_described() -> None:
    from connector_api import sections_of_api

    names = {item.name: item.doc for items in sections_of_api().values() for item in items}
    assert [name for name, text in names.items() if not text] == []
    assert {*bridge.connector.__all__, *bridge.testing.__all__, "OutcomeUnknown"} <= names.keys()

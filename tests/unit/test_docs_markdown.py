"""The Markdown of the documentation is displayed as it is meant: code blocks and tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_code_blocks_and_tables_are_complete() -> None:
    """A fence that is not alone on its line, or a row below an empty line, is displayed as running text."""
    for page in PAGES:
        fence = ""
        previous = ""
        in_table = False
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            place = f"{page.relative_to(ROOT)}:{number}: {line}"
            found = re.match(r" *(`{3,}|~{3,})", line)
            if found and (not fence or found[1] == fence):
                assert re.fullmatch(r" *(`{3,}|~{3,})(\w+( [\w./]+)?)?", line), place
                fence = "" if fence else found[1]
            elif not fence:
                if re.match(r"\|[ :|-]+\|$", line):
                    assert previous.count("|") >= 2, place
                    in_table = True
                elif line.startswith("|"):
                    assert in_table or previous == "", place
                    in_table = in_table and previous != ""
                else:
                    in_table = False
            previous = line
        assert not fence, f"{page.relative_to(ROOT)}: a code block does not end"


def test_every_table_has_a_heading() -> None:
    for page in PAGES:
        text = re.sub(r"^ *(```|~~~).*?^ *\1", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
            lines = block.splitlines()
            assert len(lines) > 2, (page, lines)
            assert re.fullmatch(r"\|[ :|-]+\|", lines[1]), (page, lines[0])

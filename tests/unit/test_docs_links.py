"""Every relative link in the documentation leads to an existing file and heading."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def _without_code(text: str) -> str:
    """Return the text without code blocks, and without the content of inline code."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)[^`]+?\1", "code", text)


@cache
def _anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub generates them."""
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    anchors: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        number, anchor = 0, slug
        while anchor in anchors:
            number += 1
            anchor = f"{slug}-{number}"
        anchors.add(anchor)
    return frozenset(anchors)


def _links(page: Path) -> list[str]:
    text = _without_code(page.read_text("utf-8"))
    targets = re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", text)
    targets += re.findall(r"^\[[^\]]+\]: +(\S+)", text, re.MULTILINE)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def test_relative_links_resolve() -> None:
    for page in PAGES:
        for link in _links(page):
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page}: {link}"
            assert target.is_relative_to(ROOT), f"{page}: {link}"
            if anchor:
                assert target.suffix == ".md", f"{page}: {link}"
                assert anchor in _anchors(target), f"{page}: {link}"


def test_documentation_has_links() -> None:
    assert sum(len(_links(page)) for page in PAGES) > 50


def test_every_page_is_linked() -> None:
    """A page nothing links to is not found by its readers. README.md links to the folder of the reference pages."""
    paths = ((page, link.partition("#")[0]) for page in PAGES for link in _links(page))
    linked = {(page.parent / path).resolve() for page, path in paths if path}
    unlinked = {page for page in PAGES if page not in linked and page.parent not in linked}
    assert unlinked <= {ROOT / "README.md"}

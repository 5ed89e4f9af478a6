"""Texts that are valid but certainly not meant: broken placeholders and curly quotes around the whole text."""

from __future__ import annotations

import re
from typing import Final

from bridge.rules.model import Diagnostic, unplaced_warning

_PLACEHOLDER = re.compile(r"(?<![{$])\{\s*((?:contact|event|delivery)\.[\w.\-]+)\s*\}{1,2}")
_UNOPENED = re.compile(r"(?<!\{)\{[^{}%#]*\}\}")
_BRACES = re.compile(r"(?<![{$])\{ ?/?[A-Za-z][\w ]{0,40}\}(?!\})")
"""A word or two in single braces, such as `{first name}` of another system."""
_CURLY_PAIRS: Final = (
    "\u201c\u201d",
    "\u2018\u2019",
    "\u201e\u201c",
    "\u201e\u201d",
    "\u00ab\u00bb",
    "\u00bb\u00ab",
)


def check_text(text: str) -> Diagnostic | None:
    """Return a warning if a text would be sent with a placeholder or quotes that its author did not mean."""
    placeholder = _PLACEHOLDER.search(text)
    if placeholder:
        hint = f"write {{{{ {placeholder[1]} }}}}"
        return unplaced_warning(f"`{placeholder[0][:60]}` is sent as it is written", hint)
    unopened = _UNOPENED.search(text)
    if unopened:
        hint = "a template starts with two braces: {{ ... }}"
        return unplaced_warning(f"`{unopened[0][:60]}` is sent as it is written", hint)
    braces = _BRACES.search(text)
    if braces:
        hint = "to insert a value, write {{ contact.first_name }}"
        return unplaced_warning(f"`{braces[0][:60]}` is sent as it is written", hint)
    return curly_quotes(text, " and are sent")


def curly_quotes(text: str, consequence: str = "") -> Diagnostic | None:
    """Return a warning if curly quotes surround a whole text, where straight ones would not be part of it."""
    stripped = text.strip()
    if len(stripped) > 2 and stripped[0] + stripped[-1] in _CURLY_PAIRS:
        hint = "remove them, or use straight quotes"
        return unplaced_warning(f"the curly quotes around the text are part of it{consequence}", hint)
    return None

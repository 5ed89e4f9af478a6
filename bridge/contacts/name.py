"""Names of people: reads the full name, the given name and the family name as people and systems write them.

What `read_name` decides:

- **Everything after the given name is the family name**: `Ludwig | van Beethoven`, `Gabriel | García Márquez`. A family
  name before a comma is certain: `Beethoven, Ludwig van`, `Smith, John Michael`. So is the first of two words in
  Chinese, Japanese or Korean script.
- **One word is the given name**, because chat visitors write theirs, unless a title or a particle is before it
  (`Dr. Weber`, `von Neumann`).
- **Titles and suffixes** (`Dr.`, `Frau`, `Jr.`, `PhD`) are neither. The full name keeps them.
- **Placeholders** (`Unknown`, `N/A`, `Website Visitor 17`), phone numbers and email addresses are no name.
- **Companies** (`Acme, Inc.`) and texts that are not plain (`plain_text`) have neither given nor family name; the full
  name is kept as it was given, because records want all of it.

`nameparser` was tried: it takes 600 µs for a name, drops words such as `King`, and knows no placeholders.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final, NamedTuple

from bridge.contacts.email import normalize_email
from bridge.contacts.plain_text import (
    MAX_FIRST_NAME,
    PARTICLES,
    SIMPLE_WORD,
    is_plain_first_name,
    is_plain_name,
    words_of,
)

_MAX_NAME = 200
MAX_READ: Final = 1000
"""Characters that are read of a longer text."""
_PHONE_DIGITS = 5

TITLES: Final = words_of(
    "mr mrs ms miss mx dr doctor prof professor rev reverend sir madam capt sgt messrs "
    "herr frau dipl-ing dipl-kfm "
    "mme mlle monsieur madame mademoiselle maître docteur "
    "sr sra srta señor señora señorita doña dra "
    "sig sigra signor signora signorina dott dottssa dottore dottoressa avv "
    "senhor senhora exmo exma dhr mevr mw mevrouw meneer drs fru fröken herra rouva neiti pani "
    "г-н г-жа господин госпожа السيد السيدة دكتور الدكتور shri smt"
)
"""Words before a name, in lower case without periods."""
_ABBREVIATED_TITLES: Final = words_of("col fr gen hr hon ing lt m mag maj me sig")
"""Titles only with a period: without it, they are names as well."""
_DEGREES: Final = words_of("hc jur med nat phil rer")
"""Parts of a title, with a period and after another title: `Dr. rer. nat.`"""
SUFFIXES: Final = words_of(
    "jr jnr sr snr ii iii iv 2nd 3rd phd md dds dvm mba msc bsc llm llb esq cpa edd dphil さん 様 先生 女士 님"
)
"""Words after a name, in lower case without periods."""
_COMPANY_FORMS: Final = words_of(
    "inc llc ltd limited gmbh kg ohg ug corp corporation company plc llp sarl sas srl spa bv nv oyj aps sro slu ltda "
    "AG AB Oy SA AS A/S S.A. Co. e.V."
)
"""The last word of a company's name: without periods in lower case, or, if it could be a name, exactly so."""
_PLACEHOLDERS: Final = words_of(
    "anonymous anonym anonyme anónimo anonimo anônimo anoniem unknown unbekannt inconnu desconocido desconhecido "
    "sconosciuto onbekend okänd ukendt ukjent tuntematon nieznany visitor besucher visiteur visitante guest gast "
    "caller anrufer user customer unavailable withheld restricted blocked private test tester undefined none "
    "n/a tbd xxx asdf"
)
_PLACEHOLDER_FILLERS: Final = words_of(
    "a an available call caller cell cellular chat client contact given id lead line name new no not number of online "
    "person phone provided site the web website wireless"
)
"""Words that are a placeholder only together with one of `_PLACEHOLDERS`."""
_PLACEHOLDER_PHRASES: Final = re.compile(
    "n a|n/a|(no|first|last|full|your)? ?name|not (given|available|provided)|no caller id|out of area|"
    "(wireless|cell|cellular) (caller|call|phone)|toll free( call)?|"
    "(scam|spam|fraud) (likely|risk|call|caller)|(potential|suspected|likely) (scam|spam|fraud)|telemarketer|"
    "robocall(er)?|first last|vorname nachname|prénom nom|nombre apellidos?|nome cognome|nome sobrenome"
)
"""What forms, programs and the carriers' caller ID say instead of a name."""
_PHRASE_STARTS: Final = words_of(
    "n no first last full your name not out wireless cell cellular toll scam spam fraud potential suspected likely "
    "telemarketer robocall robocaller vorname prénom nombre nome"
)
_NULLS: Final = frozenset(("null", "NULL", "nil", "NIL", "nan", "NaN", "NAN", "na", "NA"))
"""What programs write for no value. `Null`, `Nan` and `Na` are names."""

_SIMPLE_NAME = re.compile(rf"(?=.{{2,{MAX_FIRST_NAME}}}\Z){SIMPLE_WORD}(?: {SIMPLE_WORD}){{0,2}}")
"""One to three Latin words: most names. Without one of `_SPECIAL`, the first is the given name."""
_SPECIAL: Final = frozenset(
    word.casefold()
    for words in (
        TITLES,
        _ABBREVIATED_TITLES,
        SUFFIXES,
        _COMPANY_FORMS,
        _PLACEHOLDERS,
        _PLACEHOLDER_FILLERS,
        _PHRASE_STARTS,
    )
    for word in words
)
_HIDDEN: Final = "\u034f\u115f\u1160\u3164\uffa0"
_EAST_ASIAN_NAME = re.compile(r"[\u3005\u3041-\u3096\u30a1-\u30fc\u3400-\u9fff\uac00-\ud7a3]+")
_KATAKANA = re.compile(r"[\u30a1-\u30fc]+")
_NOTES = re.compile(r"""\s*(?:[(（\[][^)）\]]*[)）\]]|["“„«][^"“”»]*["“”»])""")
"""What is in parentheses or quotation marks: `Anna (Sales)`, `Robert "Bob" Smith`."""
_TITLE_WITHOUT_SPACE = re.compile(r"^(\w{1,5})\.(?=(\w{2,}))")


class PersonName(NamedTuple):
    """A person's name. Each part is None if it is not known."""

    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None


def is_name(text: str) -> bool:
    """Return whether a text is a name, and not a placeholder, a title, an email address or a phone number."""
    return _name_or_none(text) is not None


def clean_name(value: str | None) -> str | None:
    """Return the text on one line, cut at 200 characters.

    Control characters and whitespace become one space. Invisible characters are removed, except the joiners that
    Persian, Arabic and Indian scripts need.
    """
    if not value:
        return None
    text = value[:MAX_READ]
    if not text.isascii():
        text = _remove_invisible(unicodedata.normalize("NFC", text))
    elif not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())[:_MAX_NAME].rstrip() or None


def is_placeholder(text: str) -> bool:
    """Return whether a cleaned text says that there is no name."""
    if text.replace(" ", "").isalpha():
        plain_words = text.casefold().split()
        if _PLACEHOLDERS.isdisjoint(plain_words) and plain_words[0] not in _PHRASE_STARTS:
            return _is_null(text)
    if _is_null(text) or not any(char.isalpha() for char in text):
        return True
    words = re.sub(r"[^\w/]+|_", " ", text.casefold()).split()
    phrase = " ".join(words)
    if _PLACEHOLDER_PHRASES.fullmatch(phrase):
        return True
    known = [word in _PLACEHOLDERS for word in words]
    return any(known) and all(
        is_known or word in _PLACEHOLDER_FILLERS or any(char.isdecimal() for char in word)
        for is_known, word in zip(known, words, strict=True)
    )


def _is_null(text: str) -> bool:
    return _NULLS.issuperset(text.split(" "))


def read_name(full: str | None, first: str | None = None, last: str | None = None) -> PersonName:
    """Return the name in an event's full name, first name and last name, each as it was given or None.

    `first` and `last` win. A part that they lack is taken from the full name, if that contains the other part. Without
    a full name, they are it.
    """
    if full and first is None and last is None and _SIMPLE_NAME.fullmatch(full):
        given, _, family = full.partition(" ")
        if given not in PARTICLES and _SPECIAL.isdisjoint(full.casefold().split(" ")) and given not in _NULLS:
            return PersonName(full, given, family or None)
    return _read_name(*(text and text[:MAX_READ] for text in (full, first, last)))


@lru_cache(maxsize=4096)
def _read_name(full: str | None, first: str | None, last: str | None) -> PersonName:
    full, first, last = (_name_or_none(text) for text in (full, first, last))
    name = _turn_round(full) if full else " ".join(filter(None, (first, last))) or None
    if name is None:
        return PersonName()
    given, family = _split(full) if full else (None, None)
    if first is None and last is None:
        return PersonName(name, *_plain_parts(given, family))
    if first is not None:
        words = _words_of_name(first)[1]
        first = " ".join(words) or None
        if last is None and words and given and words[0].casefold() == given.split()[0].casefold():
            last = family
    elif last is not None and full and name.casefold().endswith(last.casefold()):
        first = _split(name[: -len(last)].strip())[0]
    return PersonName(name, *_plain_parts(first, last))


def _name_or_none(text: str | None) -> str | None:
    """Return the cleaned text, or None if it is a placeholder, a title, an email address or a phone number."""
    cleaned = clean_name(text)
    if cleaned is None or is_placeholder(cleaned) or _has_only_titles(cleaned):
        return None
    is_number = not cleaned[0].isalpha() and sum(char.isdecimal() for char in cleaned) >= _PHONE_DIGITS
    return None if is_number or ("@" in cleaned and normalize_email(cleaned)) else cleaned


def _plain_parts(first: str | None, last: str | None) -> tuple[str | None, str | None]:
    """Return both parts if both may stand in a message to a customer. Otherwise, only the full name is kept."""
    if (first is None or is_plain_first_name(first)) and (last is None or is_plain_name(last)):
        return first, last
    return None, None


def _comma_parts(name: str) -> tuple[list[str], list[str]]:
    """Return the names between the commas, and the titles and suffixes: `[Beethoven, Ludwig van]` and `[Dr.]`."""
    parts = [part.strip() for part in name.split(",") if part.strip()]
    added = [part for part in parts if _has_only_titles(part)]
    return [part for part in parts if part not in added], added


def _turn_round(name: str) -> str:
    """Return `Ludwig van Beethoven` for `Beethoven, Ludwig van`, and `John Smith Jr.` for `John Smith, Jr.`"""
    if "," not in name or _is_company(name):
        return name
    names, added = _comma_parts(name)
    turned = " ".join((*reversed(names), *added))
    return turned if len(names) <= 2 and is_plain_name(turned) else name


def _split(name: str) -> tuple[str | None, str | None]:
    """Return the given name and the family name."""
    if _is_company(name):
        return None, None
    if "," in name:
        names, _ = _comma_parts(name)
        if len(names) > 2:
            return None, None
        if len(names) == 2:
            return _split_at_comma(*names)
        name = " ".join(names)
    has_title, words = _words_of_name(name)
    if not words:
        return None, None
    if words[0] in PARTICLES or (has_title and len(words) == 1):
        return None, " ".join(words)
    if (
        len(words) == 2
        and all(map(_EAST_ASIAN_NAME.fullmatch, words))
        and not all(map(_KATAKANA.fullmatch, words))
    ):
        return words[1], words[0]
    return words[0], " ".join(words[1:]) or None


def _split_at_comma(family_name: str, given_names: str) -> tuple[str | None, str | None]:
    given, family = _words_of_name(given_names)[1], _words_of_name(family_name)[1]
    while len(given) > 1 and given[-1] in PARTICLES:
        family.insert(0, given.pop())
    return " ".join(given) or None, " ".join(family) or None


def _words_of_name(text: str) -> tuple[bool, list[str]]:
    """Return whether a title comes first, and the words without titles, suffixes, symbols and notes."""
    text = _TITLE_WITHOUT_SPACE.sub(_with_space, _NOTES.sub("", text) or text)
    text = "".join(" " if unicodedata.category(char) in ("So", "Sk", "Co", "Cn") else char for char in text)
    words = [word for word in text.split() if any(char.isalnum() for char in word)]
    start, end = 0, len(words)
    while start < end and _is_title(words, start):
        start += 1
    while end - start > 1 and _bare(words[end - 1]) in SUFFIXES:
        end -= 1
    return start > 0, words[start:end]


def _has_only_titles(text: str) -> bool:
    words = [word for word in text.split() if any(char.isalnum() for char in word)]
    return all(_is_title(words, index) or _bare(word) in SUFFIXES for index, word in enumerate(words))


def _with_space(match: re.Match[str]) -> str:
    title, following = match[1].casefold(), match[2].casefold()
    return (
        f"{match[0]} "
        if title in TITLES | _ABBREVIATED_TITLES and title + following not in TITLES
        else match[0]
    )


def _is_title(words: list[str], index: int) -> bool:
    """Return whether a word is a title, if those before it are."""
    word = words[index]
    bare = _bare(word)
    if bare in _ABBREVIATED_TITLES:
        return word.endswith(".") and (
            bare != "m" or len(words) == 2
        )  # `M. Dupont`, but `M. Night Shyamalan`
    return bare in TITLES or (index > 0 and "." in word and bare in _DEGREES)


def _is_company(name: str) -> bool:
    _, _, form = name.rpartition(" ")
    return form != name and (form in _COMPANY_FORMS or _bare(form) in _COMPANY_FORMS)


def _bare(word: str) -> str:
    return word.casefold().replace(".", "").strip(",")


def _remove_invisible(text: str) -> str:
    kept: list[str] = []
    for char in text:
        category = unicodedata.category(char)
        if char in "\u200c\u200d":
            if kept and ord(kept[-1]) > 0x590 and unicodedata.category(kept[-1])[0] in "LM":
                kept.append(char)
        elif category in ("Cc", "Zl", "Zp"):
            kept.append(" ")
        elif category not in ("Cf", "Cs") and char not in _HIDDEN and not "\ufe00" <= char <= "\ufe0e":
            kept.append(char)
    return "".join(kept)

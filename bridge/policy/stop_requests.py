"""Stop requests: recognizes in a text that a person wants no more messages, or wants them again.

The law counts any reasonable means (47 CFR 64.1200(a)(10)), so in doubt a text is an opt-out: a message too few can be
made up for, one too many cannot. A text is an opt-out if, without punctuation, emoji, case and accents,

- it begins with a word such as `stop` or `unsubscribe`, perhaps after a greeting: `Hi, please stop this`;
- one of its clauses is nothing but such a word: `Not interested. Stop!`;
- it is nothing but a word such as `cancel`, `end` or `baja`, with a courtesy or a signature: `Cancel please`;
- one of its sentences asks for no more messages: `please don't text me again`, `remove me from your list`.

A text that contains such a word in another sense (`the bus stop is closed`, `cancel my appointment`, `stop by at 5`)
is none, nor is a sentence that says when not to write, or that asks for texts instead of calls.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Final, Literal

from bridge.policy import stop_words

StopRequest = Literal["stop", "start"]

MAX_LENGTH: Final = 2000
"""Characters that are read; a text message has at most 1600."""
_SIGNATURE_WORDS: Final = 4
"""Words of one line of a signature."""

_LETTERS: Final = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i"})
_QUOTED_LINE = re.compile(r"^\s*>.*$", re.MULTILINE)
_QUOTATION = re.compile(r"[“„”«»\"][^“„”«»\"]*[“”«»\"]")
_APOSTROPHES = re.compile(r"['’‘`´ʼ]")
_SPACED_WORD = re.compile(r"(?<![a-z0-9])[a-z](?:[ .*_-]{1,3}[a-z]){3,}(?![a-z0-9])")
_SENTENCE_END = re.compile(r"[.!?;\n…]+")
_CLAUSE_END = re.compile(r"[,:()\[\]/|–—]+| - ")
_ANY_WORD = re.compile(r"[^\W_]+")
_WORD = re.compile(r"[a-z0-9]+")
_LONG_STOP = re.compile(r"s+t+o+p+")
_INSTRUCTION = re.compile(r"(?:reply|text|txt|send|answer|respond)(?: with)? stop (?:to|for) .+")
"""The bridge's own words, which some people send back."""

Words = list[str]


def read_stop_request(text: str) -> StopRequest | None:
    """Return what a text asks for: `stop`, `start`, or None for anything else."""
    lines = [line for line in _lines(text) if line]
    sentences = [sentence for line in lines for sentence in line]
    words = [word for sentence in sentences for clause in sentence for word in clause]
    if len(words) == 1 and words[0] in stop_words.OPT_IN:
        return "start"
    if len(sentences) > 1:
        sentences = [sentence for sentence in sentences if not _INSTRUCTION.fullmatch(_joined(sentence))]
    return "stop" if _asks_to_stop(lines, sentences) else None


def _asks_to_stop(lines: Sequence[list[list[Words]]], sentences: Sequence[list[Words]]) -> bool:
    clauses = [clause for sentence in sentences for clause in sentence]
    if any(stop_words.WANTS_TEXTS.search(" ".join(clause)) for clause in clauses):
        return False
    return (
        _begins_with_stop(clauses)
        or any(_is_one_word(clause, stop_words.STOP_ANYHOW) for clause in clauses)
        or _is_stop_word_alone(lines)
        or any(_asks_in_words(_joined(sentence)) for sentence in sentences)
    )


def _begins_with_stop(clauses: Sequence[Words]) -> bool:
    first: Words = next((rest for clause in clauses if (rest := _without_greeting(clause))), [])
    request = stop_words.ASKED.sub("", " ".join(first), count=1)
    return (
        bool(request)
        and request.split()[0] in stop_words.STOP_ANYHOW
        and not stop_words.OTHER_STOPS.match(request)
    )


def _is_one_word(clause: Words, known: Collection[str]) -> bool:
    """Return whether a clause is one of these words, apart from courtesies."""
    rest = _without_greeting(clause)
    return bool(rest) and rest[0] in known and all(word in stop_words.AFTER for word in rest[1:])


def _is_stop_word_alone(lines: Sequence[list[list[Words]]]) -> bool:
    """Return whether a text is nothing but a stop word, with a courtesy or a signature."""
    if not lines:
        return False
    first = [rest for sentence in lines[0] for clause in sentence if (rest := _without_greeting(clause))]
    return (
        bool(first)
        and _is_one_word(first[0], stop_words.STOP_ALONE)
        and sum(len(clause) for clause in first[1:]) <= 2
        and all(_is_signature(line) for line in lines[1:])
    )


def _is_signature(line: list[list[Words]]) -> bool:
    words = [word for sentence in line for clause in sentence for word in clause]
    return len(words) <= _SIGNATURE_WORDS or words[:2] in (["sent", "from"], ["gesendet", "von"])


def _asks_in_words(sentence: str) -> bool:
    return bool(stop_words.stop_phrases().search(sentence)) and (
        not stop_words.LIMITED.search(sentence) or bool(stop_words.FOR_GOOD.search(sentence))
    )


def _without_greeting(clause: Words) -> Words:
    index = 0
    if clause[:2] in (
        ["no", "thanks"],
        ["no", "thank"],
        ["no", "gracias"],
        ["no", "grazie"],
        ["nein", "danke"],
    ):
        index = 2
    while index < len(clause) and clause[index] in stop_words.BEFORE:
        index += 1
    return clause[index:]


def _joined(sentence: list[Words]) -> str:
    return " ".join(word for clause in sentence for word in clause)


def _lines(text: str) -> list[list[list[Words]]]:
    """Return the lines of a text as sentences, which consist of clauses, which consist of words."""
    plain = _plain(text)
    return [
        [clauses for sentence in _SENTENCE_END.split(line) if (clauses := _clauses(sentence))]
        for line in plain.splitlines()
    ]


def _clauses(sentence: str) -> list[Words]:
    clauses = ([_word(word) for word in _WORD.findall(part)] for part in _CLAUSE_END.split(sentence))
    return [clause for clause in clauses if clause]


def _word(word: str) -> str:
    return "stop" if _LONG_STOP.fullmatch(word) else word


def _plain(text: str) -> str:
    """Return a text in lowercase, without accents, invisible characters, apostrophes and quotations of other texts."""
    text = _QUOTED_LINE.sub("", unicodedata.normalize("NFKC", text[:MAX_LENGTH]))
    text = _QUOTATION.sub(
        lambda quotation: quotation[0] if len(_ANY_WORD.findall(quotation[0])) <= 2 else "", text
    )
    decomposed = unicodedata.normalize("NFKD", _APOSTROPHES.sub("", text).casefold().translate(_LETTERS))
    visible = "".join(char for char in decomposed if unicodedata.category(char) not in ("Mn", "Cf", "Me"))
    return _SPACED_WORD.sub(lambda spaced: "".join(_WORD.findall(spaced[0])), visible)

"""Differences between texts, word by word, and between files, line by line."""

from __future__ import annotations

from bridge.web.word_diff import line_diff, word_diff


def test_changed_words_are_removed_and_added() -> None:
    assert word_diff("Hi Ines, we tried to reach you.", "Hi Ines, we called you.") == [
        ("same", "Hi Ines, we "),
        ("removed", "tried to reach "),
        ("added", "called "),
        ("same", "you."),
    ]
    assert word_diff(None, ["a"]) == [("added", '["a"]')]
    assert word_diff("same", "same") == [("same", "same")]


def test_long_texts_are_shortened() -> None:
    pieces = word_diff("a " * 5000, "b " * 5000)
    assert [piece.kind for piece in pieces] == ["removed", "added", "same"]
    assert pieces[-1].text == "…"


def test_lines_of_files() -> None:
    assert line_diff("a\nb\nc\n", "a\nx\nc\n") == [
        ("place", "@@ -1,3 +1,3 @@"),
        ("same", "a"),
        ("removed", "b"),
        ("added", "x"),
        ("same", "c"),
    ]
    assert line_diff("a\n", "a\n") == []

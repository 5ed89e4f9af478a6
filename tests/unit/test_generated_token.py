"""The generated admin token: on a terminal as a link, otherwise in a file that only its user can read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bridge.cli.generated_token import show_generated_token, write_generated_token
from bridge.errors import ConfigError
from bridge.settings import Settings

TOKEN = "a-generated-token-0123456789"


@pytest.mark.parametrize(
    ("log_format", "is_terminal", "in_file"),
    [("console", True, False), ("console", False, True), ("json", True, True), ("json", False, True)],
)
def test_token_is_printed_only_for_a_person(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    log_format: str,
    is_terminal: bool,
    in_file: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    settings = Settings.load(
        {"BRIDGE_DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db", "BRIDGE_LOG_FORMAT": log_format}
    )
    path = write_generated_token(settings, TOKEN)
    show_generated_token("http://127.0.0.1:8080", TOKEN, path)
    shown = "".join(capsys.readouterr())
    assert (path is not None, TOKEN in shown) == (in_file, not in_file)
    if path is not None:
        assert path == tmp_path / "admin-token"
        assert path.read_text() == f"{TOKEN}\n"
        assert path.stat().st_mode & 0o777 == 0o600
        assert str(path) in shown.replace("\n", "")
    assert [file.name for file in tmp_path.iterdir()] == (["admin-token"] if in_file else [])


def test_without_a_place_for_the_file_the_service_does_not_start(tmp_path: Path) -> None:
    settings = Settings.load(
        {"BRIDGE_DATABASE_URL": f"sqlite:///{tmp_path}/missing/bridge.db", "BRIDGE_LOG_FORMAT": "json"}
    )
    with pytest.raises(
        ConfigError, match=r"cannot write the generated admin token .* set BRIDGE_ADMIN_TOKEN"
    ):
        write_generated_token(settings, TOKEN)

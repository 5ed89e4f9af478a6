"""Log output: whole lines in order, and no error if stderr cannot be written."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from typing import IO

import pytest

from bridge.telemetry import mask

WRITER = """
import logging
from bridge.telemetry import buffered_logging, configure_logging, log
configure_logging("json")
log.info("first")
with buffered_logging():
    for number in range(30):
        log.info("line", n=number)
        logging.getLogger("library").warning("line of a library")
    log.info("long", note="ü" * 600)
log.info("last")
print("running")
"""


def run_writer(stderr: IO[bytes]) -> str:
    result = subprocess.run(
        [sys.executable, "-c", WRITER], stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60
    )
    assert result.returncode == 0
    return result.stdout


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="a pipe that keeps writes apart exists on Linux only")
def test_log_writes_contain_whole_lines_in_order() -> None:
    reader, writer = os.pipe2(os.O_DIRECT)
    with open(reader, "rb", buffering=0) as pipe:
        with open(writer, "wb") as stderr:
            run_writer(stderr)
        writes = list(iter(lambda: pipe.read(65536), b""))
    assert all(write.endswith(b"\n") and len(write) <= select.PIPE_BUF for write in writes)
    entries = [json.loads(line) for line in b"".join(writes).splitlines()]
    assert [entry["event"] for entry in entries] == [
        "first", *["line", "line of a library"] * 30, "long", "last",
    ]  # fmt: skip
    assert [entry["n"] for entry in entries if "n" in entry] == [*range(30)]
    assert len(writes) < 10


def test_log_ignores_closed_pipe_and_full_disk() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stderr:
        assert run_writer(stderr) == "running\n"
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as stderr:
            assert run_writer(stderr) == "running\n"


def test_closed_stderr_is_replaced_before_another_file_gets_its_descriptor() -> None:
    code = """
import os, sys
from bridge.cli import main
sys.argv = ["bridge", "--help"]
try:
    main()
except SystemExit:
    print(sys.stderr.fileno(), os.path.samefile(os.devnull, "/dev/fd/2"), os.get_inheritable(2))
"""
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "2 True True"


@pytest.mark.parametrize("text", ["a", "1", "a.", "://a:", "a@", "+", " ", "bearer ", "pat-a", "é"])
def test_mask_takes_linear_time(text: str) -> None:
    repeated = text * (300_000 // len(text))  # in quadratic time, it would take minutes
    assert len(mask(repeated)) > 0


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("to=ines@okafor.example", "t***@okafor.example"),
        ("see https://user:pass@host/path", "see https://***@host/path"),
        (f"{'x' * 3000} +12125550123", f"{'x' * 3000} +121***23"),
    ],
)
def test_mask_hides_addresses_and_passwords(text: str, masked: str) -> None:
    assert mask(text) == masked


ERROR_WRITER = """
from bridge.telemetry import configure_logging, log
configure_logging("FORMAT")
def nested(depth):
    if depth == 0:
        raise ValueError("the reason")
    nested(depth - 1)
def other(depth):
    nested(20) if depth == 0 else other2(depth - 1)
def other2(depth):
    other(depth)
try:
    other(30)
except ValueError as error:
    log.error("failed", exc_info=error)
log.warning("summary", text="S\\x1b]0;PWNED\\x07\\x9b31m\\u202eX")
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_long_traceback_ends_with_its_exception_and_control_characters_are_replaced(log_format: str) -> None:
    code = ERROR_WRITER.replace("FORMAT", log_format)
    result = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=60, check=True
    )
    assert "ValueError: the reason" in result.stderr
    assert len(result.stderr) < 5000
    text = (
        "".join(json.loads(line).get("text", "") for line in result.stderr.splitlines())
        if log_format == "json"
        else result.stderr
    )
    assert "S\ufffd]0;PWNED\ufffd\ufffd31m\ufffdX" in text

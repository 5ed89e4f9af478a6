"""Lock files: the image gets the runtime libraries only, in the versions that the tests use."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
RUNTIME, DEV = ((TOP / name).read_text() for name in ("requirements.lock", "requirements-dev.lock"))


def pins(lock: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^([a-z0-9-]+)==([^ ]+)", lock, re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements}


def test_lock_files_pin_the_same_versions() -> None:
    assert pins(RUNTIME) < pins(DEV)


def test_runtime_lock_contains_the_dependencies_and_no_development_or_sandbox_library() -> None:
    locked = {name for name, _ in pins(RUNTIME)}
    assert names(PROJECT["dependencies"]) <= locked
    development = names(PROJECT["optional-dependencies"]["dev"]) - {"heppu-bridge"}
    assert locked.isdisjoint(development | {"aiosmtpd"})


def test_lock_files_have_hashes_and_no_index_addresses() -> None:
    for lock in (RUNTIME, DEV):
        assert "://" not in lock
        for requirement in re.split(r"\n(?=[^ ])", lock.strip()):
            assert re.match(r"[a-z0-9-]+==[^ ]+ .*\\\n    --hash=sha256:[0-9a-f]{64}", requirement), (
                requirement
            )

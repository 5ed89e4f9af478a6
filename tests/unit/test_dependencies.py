"""Supply chain: lock files, lower bounds, the SBOM, and the actions of workflows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
WORKFLOWS = list((TOP / ".github" / "workflows").glob("*.yml"))
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


ADVISORIES = {
    "aiohttp": ("3.13.4", "CVE-2026-22815"),
    "cryptography": ("48.0.1", "GHSA-537c-gmf6-5ccf"),
    "h11": ("0.16.0", "CVE-2025-43859"),
    "idna": ("3.15", "CVE-2026-45409"),
    "jinja2": ("3.1.6", "CVE-2025-27516"),
    "lxml": ("6.1.0", "CVE-2026-41066"),
    "mako": ("1.3.12", "CVE-2026-44307"),
    "pygments": ("2.20.0", "CVE-2026-4539"),
    "pyjwt": ("2.13.0", "CVE-2026-48526"),
    "python-dotenv": ("1.2.2", "CVE-2026-28684"),
    "python-multipart": ("0.0.31", "CVE-2026-53540"),
    "requests": ("2.33.0", "CVE-2026-25645"),
    "starlette": ("1.3.1", "CVE-2026-54283"),
    "urllib3": ("2.7.0", "CVE-2026-44432"),
}
"""The version that fixes the last advisory known when this was written. `make audit` asks for newer ones."""


def test_neither_lock_file_nor_lower_bound_admits_a_version_with_a_known_advisory() -> None:
    locked = {name: Version(version) for name, version in pins(RUNTIME)}
    bounds = {
        requirement.name.lower(): Version(bound.version)
        for requirement in map(Requirement, PROJECT["dependencies"])
        for bound in requirement.specifier
        if bound.operator == ">="
    }
    for name, (fixed, advisory) in ADVISORIES.items():
        assert locked[name] >= Version(fixed), advisory
        assert bounds.get(name, Version(fixed)) >= Version(fixed), advisory


def test_workflows_name_actions_by_the_hash_of_a_commit() -> None:
    uses = [line for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert uses
    for line in uses:
        assert re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_sbom_lists_every_package_of_the_image_with_its_hashes(tmp_path: Path) -> None:
    target = tmp_path / "sbom.json"
    script = [sys.executable, "-m", "cyclonedx_py", "requirements", "requirements.lock", "--pyproject"]
    script += ["pyproject.toml", "--no-validate", "--output-reproducible", "--output-file", str(target)]
    run = subprocess.run(script, cwd=TOP, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    sbom = json.loads(target.read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    assert {(item["name"], item["version"]) for item in sbom["components"]} == pins(RUNTIME)
    assert all(item["externalReferences"][0]["hashes"] for item in sbom["components"])
    assert "cyclonedx_py requirements requirements.lock" in (TOP / "Makefile").read_text()

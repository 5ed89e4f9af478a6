"""Checks the locked packages against PyPI's vulnerability database, with pip-audit.

    python .ci/audit.py [--allow-offline]

Fails if a package has a known vulnerability, or if the database does not respond or does not know a package. With
`--allow-offline`, which `make check` uses, only a vulnerability is a failure: it also passes without a network, and
behind a mirror of PyPI, which has no vulnerability data.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements-dev.lock"
"""It contains the packages of requirements.lock in the same versions."""
SECONDS = 120
ACCEPTED: dict[str, str] = {}
"""Vulnerability IDs that do not affect the bridge or have no fix yet, each with the reason."""


def main(allow_offline: bool) -> int:
    """Print the result and return the exit code."""
    packages, problem = look_up()
    unanswered = [package["name"] for package in packages if "skip_reason" in package]
    if unanswered and not problem:
        problem = f"{len(unanswered)} of {len(packages)} packages are unknown to the database: {summary(unanswered)}"
    vulnerable = [line for package in packages for line in vulnerabilities(package)]
    print(*vulnerable, sep="\n", end="\n" if vulnerable else "")
    if problem:
        print(f"audit {'skipped' if allow_offline else 'failed'}: {problem}")
        print("to check the locked packages, run `make audit` on a machine that can reach PyPI")
    elif not vulnerable:
        print(f"audit: no known vulnerability in {len(packages)} packages")
    return 1 if vulnerable or (problem and not allow_offline) else 0


def look_up() -> tuple[list[dict[str, Any]], str]:
    """Return pip-audit's entry for each package, and why there is none."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--timeout=10"]
    command += ["--progress-spinner=off", "--format=json", "--requirement", str(LOCK)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        return json.loads(run.stdout)["dependencies"], ""
    except subprocess.TimeoutExpired:
        return [], f"no response from PyPI within {SECONDS} seconds"
    except ValueError:
        lines = run.stderr.strip().splitlines() or ["pip-audit printed nothing"]
        return [], f"no response from PyPI ({lines[-1][:200]})"


def vulnerabilities(package: dict[str, Any]) -> list[str]:
    """Return one line for each vulnerability of the package that is not accepted."""
    return [
        f"{package['name']} {package['version']}: {found['id']}, "
        f"fixed in {', '.join(found['fix_versions']) or 'no version yet'}"
        for found in package.get("vulns", [])
        if ACCEPTED.keys().isdisjoint((found["id"], *found["aliases"]))
    ]


def summary(names: list[str]) -> str:
    """Return the first names of a list."""
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


if __name__ == "__main__":
    sys.exit(main("--allow-offline" in sys.argv[1:]))

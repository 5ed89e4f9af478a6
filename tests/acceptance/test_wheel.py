"""The installed package: a wheel works outside the repository, with and without the `sandbox` extra."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.service_process import clean_environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("bridge", "connectors"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--wheel-dir", str(wheels), str(source)],
        check=True, capture_output=True, timeout=100,
    )  # fmt: skip
    (wheel,) = wheels.iterdir()
    target = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def run(
    site_packages: Path, folder: Path, *arguments: str, blocked: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the unpacked wheel, optionally as if the module `blocked` were not installed."""
    code = (
        "import sys, importlib.util as u; find = u.find_spec; blocked = sys.argv.pop(1)\n"
        "u.find_spec = lambda name, *rest: None if name == blocked else find(name, *rest)\n"
        "import bridge.cli; assert bridge.cli.__file__.startswith(sys.argv.pop(1)); bridge.cli.main()"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code, blocked, str(site_packages), *arguments],
        cwd=folder, env=clean_environment(PYTHONPATH=str(site_packages), COLUMNS="110"),
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_installed_wheel_creates_checks_and_tests_rules(site_packages: Path, tmp_path: Path) -> None:
    assert run(site_packages, tmp_path, "init").returncode == 0
    assert "SLACK_WEBHOOK_URL is not set" in run(site_packages, tmp_path, "check").stdout
    assert "2 passed" in run(site_packages, tmp_path, "test").stdout
    assert "hubspot" in run(site_packages, tmp_path, "connectors").stdout


@pytest.mark.parametrize("command", ["demo", "sandbox"])
def test_command_without_sandbox_extra_names_the_install_command(
    site_packages: Path, tmp_path: Path, command: str
) -> None:
    result = run(site_packages, tmp_path, command, blocked="aiosmtpd")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"`bridge {command}` needs the sandbox extra" in result.stderr
    assert "pip install 'heppu-bridge[sandbox]'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.faults
def test_installed_wheel_runs_the_demo(site_packages: Path, tmp_path: Path) -> None:
    result = run(site_packages, tmp_path, "demo")
    assert result.returncode == 0, result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


def test_libraries_of_sandbox_and_traces_are_required_only_by_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert not [name for name in project["dependencies"] if name.startswith("aiosmtpd")]
    assert [name for name in extras["sandbox"] if name.startswith("aiosmtpd")]
    assert f"{project['name']}[otel,sandbox]" in extras["dev"]
    for name in ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"):
        assert not [requirement for requirement in project["dependencies"] if requirement.startswith(name)]
        assert [requirement for requirement in extras["otel"] if requirement.startswith(name)]
    assert project["scripts"]["bridge"] == project["scripts"]["heppu-bridge"]


def test_every_package_is_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    tops = {"bridge": "bridge", "connectors": "bridge_connectors"}
    packages = {
        ".".join([name, *file.parent.relative_to(ROOT / folder).parts])
        for folder, name in tops.items()
        for file in (ROOT / folder).rglob("__init__.py")
    }
    assert set(listed) == packages

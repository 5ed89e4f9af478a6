"""The installed package: a wheel works outside the repository, with and without the `sandbox` extra."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.service_process import clean_environment

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "heppu-bridge-lighthouse"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the bridge."""
    source = tmp_path_factory.mktemp("source")
    for name in ("bridge", "connectors"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return build_wheel(source, tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def site_packages(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel."""
    target = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def build_wheel(source: Path, target: Path) -> Path:
    """Build a wheel from the files in `source` and return its path."""
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(target), str(source))
    (wheel,) = target.iterdir()
    return wheel


def pip(*arguments: str, python: Path | None = None) -> None:
    """Run pip for an environment, without an index and without dependencies."""
    environment = ("--python", str(python)) if python else ()
    command = [sys.executable, "-m", "pip", *environment, arguments[0], "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, *arguments[1:]], check=True, capture_output=True, timeout=100)


def run(
    site_packages: Path, folder: Path, *commands: str, blocked: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run commands of the unpacked wheel in one process, optionally as if the module `blocked` were not installed.

    The exit code is that of the last command.
    """
    code = (
        "import sys, importlib.util as u; find = u.find_spec; blocked = sys.argv.pop(1)\n"
        "u.find_spec = lambda name, *rest: None if name == blocked else find(name, *rest)\n"
        "import bridge.cli; assert bridge.cli.__file__.startswith(sys.argv.pop(1))\n"
        "exit_code = 0\n"
        "for command in sys.argv[1:]:\n"
        "    sys.argv = ['bridge', command]\n"
        "    try: bridge.cli.main()\n"
        "    except SystemExit as error: exit_code = error.code\n"
        "sys.exit(exit_code)"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code, blocked, str(site_packages), *commands],
        cwd=folder, env=clean_environment(PYTHONPATH=str(site_packages), COLUMNS="110"),
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_installed_wheel_works_with_and_without_the_sandbox_extra(
    site_packages: Path, tmp_path: Path
) -> None:
    result = run(site_packages, tmp_path, "init", "check", "test", "connectors")
    assert result.returncode == 0, result.stderr
    for text in ("SLACK_WEBHOOK_URL is not set", "2 passed", "hubspot"):
        assert text in result.stdout
    result = run(site_packages, tmp_path, "demo", "sandbox", blocked="aiosmtpd")
    assert (result.returncode, result.stdout) == (1, "")
    for command, line in zip(("demo", "sandbox"), result.stderr.splitlines(), strict=True):
        assert f"`bridge {command}` needs the sandbox extra" in line
        assert "pip install 'heppu-bridge[sandbox]'" in line


@pytest.mark.faults  # builds and installs two packages
def test_connector_package_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    wheels.mkdir()
    example = build_wheel(source, wheels)
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip("install", str(wheel), str(example), python=python)
    # The libraries of the bridge come from here, because tests use no index.
    (site,) = environment.glob("lib/*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))

    def run_here(*command: str) -> str:
        result = subprocess.run(
            [str(python), "-P", "-m", *command], cwd=source, env=clean_environment(), capture_output=True, text=True,
            timeout=100,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    connectors = {
        item["name"]: item for item in json.loads(run_here("bridge", "connectors", "--json"))["items"]
    }
    assert connectors["lighthouse"]["origin"] == "heppu-bridge-lighthouse"
    assert connectors["lighthouse"]["actions"] == ["put_up_note"]
    assert connectors["hubspot"]["origin"].startswith(str(environment))  # not this checkout's
    assert "LIGHTHOUSE_TOKEN" in run_here("bridge", "connectors", "show", "lighthouse")
    # It sends its note, and passes the conformance suite that came with the wheel of the bridge.
    summary = run_here("pytest", "-q", "-p", "no:cacheprovider", "tests").splitlines()[-1]
    assert "passed" in summary
    assert "failed" not in summary


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
    assert f"{project['name']}[apprise,otel,sandbox]" in extras["dev"]
    assert [requirement.partition(">")[0] for requirement in extras["apprise"]] == ["apprise"]
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

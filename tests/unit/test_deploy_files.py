"""The files of deploy/ and the image: valid by their schemas, hardened, and in agreement with the service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from bridge.cli.worker_supervisor import KILL_AFTER
from bridge.setting_types import parse_duration
from bridge.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
FINAL_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MANIFESTS = [
    resource
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    if path.name not in ("kustomization.yaml", "rules.yaml")
    for resource in yaml.safe_load_all(path.read_text("utf-8"))
]
KUSTOMIZATION: dict[str, Any] = yaml.safe_load(
    (DEPLOY / "kubernetes" / "kustomization.yaml").read_text("utf-8")
)
PODS = {
    resource["metadata"]["name"]: resource["spec"]["template"]["spec"]
    for resource in MANIFESTS
    if resource["kind"] in ("Deployment", "Job")
}
UNIT = DEPLOY / "bridge.service"
KUBERNETES = "1.34"


def test_image_can_write_neither_rules_nor_code() -> None:
    """One write to the data folder was once code at the next start, because connectors were imported from there."""
    copied = re.findall(r"^COPY (?:--\S+ )*\S+ (\S+)$", FINAL_STAGE, re.MULTILINE)
    assert copied == ["/opt/bridge", "/config/rules.yaml"]
    assert "BRIDGE_RULES_FILE=/config/rules.yaml" in FINAL_STAGE
    assert "chown" not in FINAL_STAGE
    assert re.findall(r"--owner=bridge \S+ \S+ (\S+)$", FINAL_STAGE, re.MULTILINE) == ["/data"]
    assert re.findall(r"^VOLUME (\S+)$", FINAL_STAGE, re.MULTILINE) == ["/data"]


def test_image_runs_as_a_number_and_checks_every_role() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert 'CMD ["python", "-P", "-m", "bridge.healthcheck"]' in FINAL_STAGE


def test_image_has_no_development_packages() -> None:
    assert "requirements-dev.lock" not in FINAL_STAGE
    installed = re.findall(r"/opt/bridge/bin/pip install .*", DOCKERFILE)
    assert [line.split()[-1] for line in installed] == ["requirements.lock", "dist/*.whl"]


def test_compose_file_is_valid() -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema_rs.validate(json.loads(schema.read_text("utf-8")), COMPOSE)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert "privileged" not in service


def test_compose_mounts_folders_and_only_the_proxys_single_file() -> None:
    """A mounted file stays the old one when an editor or git puts a new file in its place."""
    mounted = {volume for service in SERVICES.values() for volume in service["volumes"] if volume[0] == "."}
    assert mounted == {"./config:/config:ro", "./Caddyfile:/etc/caddy/Caddyfile:ro"}


def test_compose_runs_two_instances_behind_the_proxy_that_is_trusted() -> None:
    bridges = [name for name in SERVICES if name.startswith("bridge-")]
    assert len(bridges) == 2
    assert SERVICES["proxy"]["environment"]["BRIDGE_INSTANCES"] == " ".join(
        f"{name}:8080" for name in bridges
    )
    (network,) = COMPOSE["networks"]["front"]["ipam"]["config"]
    for name in bridges:
        assert "ports" not in SERVICES[name]
        assert SERVICES[name]["environment"]["BRIDGE_TRUSTED_PROXIES"] == network["subnet"]
    assert COMPOSE["networks"]["back"]["internal"]
    assert SERVICES["postgres"]["networks"] == ["back"]


def resources(kind: str) -> list[dict[str, Any]]:
    return [resource for resource in MANIFESTS if resource["kind"] == kind]


@pytest.mark.parametrize("resource", MANIFESTS, ids=lambda item: f"{item['kind']} {item['metadata']['name']}")
def test_manifest_is_valid(resource: dict[str, Any]) -> None:
    import kubernetes_validate  # takes more than a second

    kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def test_schema_notices_a_wrong_manifest() -> None:
    import kubernetes_validate

    wrong = {**resources("Service")[0], "spec": {"ports": [{"port": "eighty"}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_kustomization_names_every_file_and_kind() -> None:
    names = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {
        "kustomization.yaml",
        "rules.yaml",
    }
    assert set(KUSTOMIZATION["resources"]) == names
    assert KUSTOMIZATION["configMapGenerator"][0]["files"] == ["rules.yaml"]
    assert {image["name"] for image in KUSTOMIZATION["images"]} == {
        container["image"] for pod in PODS.values() for container in pod["containers"]
    }
    kinds = {resource["kind"] for resource in MANIFESTS}
    assert kinds >= {"Deployment", "Job", "NetworkPolicy", "PodDisruptionBudget", "Service", "Ingress"}


@pytest.mark.parametrize("name", PODS)
def test_pod_meets_the_restricted_standard(name: str) -> None:
    """The namespace enforces it: https://kubernetes.io/docs/concepts/security/pod-security-standards/."""
    pod = PODS[name]
    assert (
        resources("Namespace")[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    )
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} == {
        "configMap",
        "secret",
        "emptyDir",
    }
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", PODS)
def test_service_named_bridge_sets_no_variables_of_the_pod(name: str) -> None:
    """Kubernetes would set BRIDGE_PORT=tcp://..., for which the bridge would not start."""
    assert PODS[name]["enableServiceLinks"] is False


def test_deployments_survive_the_loss_of_a_node() -> None:
    budgets = {budget["metadata"]["name"]: budget["spec"] for budget in resources("PodDisruptionBudget")}
    for deployment in resources("Deployment"):
        assert deployment["spec"]["replicas"] == 2
        budget = budgets[deployment["metadata"]["name"]]
        assert (budget["minAvailable"], budget["selector"]) == (1, deployment["spec"]["selector"])
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        probes = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
        assert probes == {
            "startupProbe": "/healthz",
            "livenessProbe": "/healthz",
            "readinessProbe": "/readyz",
        }


def test_settings_of_the_pods_are_valid(tmp_path: Path) -> None:
    (settings,) = resources("ConfigMap")
    values: dict[str, str] = settings["data"]
    for name, value in values.items():
        if name.endswith("_FILE") and value.startswith("/secrets/"):
            secret = tmp_path / Path(value).name
            secret.write_text("postgresql://db/x" if "DATABASE" in name else f"{name.lower()}-long-enough")
            values = {**values, name: str(secret)}
    loaded = Settings.load(values)
    assert loaded.bridge_database_url == "postgresql://db/x"
    assert loaded.bridge_host == "0.0.0.0"
    assert set(values) <= set(Settings.variables(""))


def test_time_to_stop_covers_the_delay_and_the_attempts() -> None:
    (settings,) = resources("ConfigMap")
    delay = parse_duration(settings["data"]["BRIDGE_STOP_DELAY"]).total_seconds()
    for deployment in resources("Deployment"):
        seconds = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert seconds > delay + KILL_AFTER
    for name in ("bridge-1", "bridge-2"):
        delay = parse_duration(SERVICES[name]["environment"]["BRIDGE_STOP_DELAY"]).total_seconds()
        assert parse_duration(SERVICES[name]["stop_grace_period"]).total_seconds() > delay + KILL_AFTER
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text("utf-8"), re.MULTILINE)
    assert int(stop) > KILL_AFTER


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not installed: the unit was not checked",
)


@needs_systemd
def test_systemd_unit_is_valid_and_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace("/opt/bridge/bin/bridge", "/bin/true"), "utf-8")
    verified = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    exposure = re.search(r"Overall exposure level for bridge.service: ([\d.]+)", result.stdout)
    assert exposure, result.stdout + result.stderr
    assert float(exposure[1]) < 2

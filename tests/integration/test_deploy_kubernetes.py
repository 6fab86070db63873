"""The Kubernetes manifests: their schemas, the restrictions of each pod, and that they fit together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollwave.settings import Settings
from tests.shipped import DEPLOY
from tests.tools import Tool

BASE, EXAMPLE = DEPLOY / "kubernetes" / "base", DEPLOY / "kubernetes" / "overlays" / "example"
VERSIONS = ("1.28", "1.32", "1.37")


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*.yaml")):
        if file.name != "kustomization.yaml":
            yield from yaml.safe_load_all(file.read_text())


MANIFESTS = list(documents(BASE))
WORKLOADS = {doc["metadata"]["name"]: doc for doc in MANIFESTS if doc["kind"] in {"Job", "Deployment"}}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_are_valid_by_the_kubernetes_schemas(version: str, tmp_path: Path) -> None:
    validate = Tool("kubernetes-validate")
    everything = tmp_path / "all.yaml"
    everything.write_text(yaml.safe_dump_all([*MANIFESTS, *documents(EXAMPLE)]))
    validate.run("--strict", "-k", version, everything)
    misspelt = tmp_path / "misspelt.yaml"
    misspelt.write_text(everything.read_text().replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    assert validate.tried("--strict", "-k", version, misspelt).returncode != 0


@pytest.mark.parametrize("folder", [BASE, EXAMPLE], ids=["base", "example"])
def test_the_kustomization_lists_every_file(folder: Path) -> None:
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    files = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml", "secrets.example.yaml"}
    assert {name for name in listed if name.endswith(".yaml")} == files
    assert all((folder / name).exists() for name in listed)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_pod_runs_without_privileges(name: str) -> None:
    pod = WORKLOADS[name]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("component", ["serve", "worker"])
def test_deployments_have_probes_rolling_updates_and_matching_selectors(component: str) -> None:
    deployment = WORKLOADS[f"rollwave-{component}"]
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] == 35
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == {"serve": "/livez", "worker": "/readyz"}[component]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    [budget] = [
        d for d in MANIFESTS if d["kind"] == "PodDisruptionBudget" and d["metadata"]["name"].endswith(component)
    ]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"], budget["spec"]["selector"]]
    selectors += [each["labelSelector"] for each in pod["topologySpreadConstraints"]]
    for selector in selectors:
        assert selector["matchLabels"].items() <= labels


def test_the_network_policy_selects_every_pod_and_the_service_its_pods() -> None:
    [policy] = [doc["spec"] for doc in MANIFESTS if doc["kind"] == "NetworkPolicy"]
    for workload in WORKLOADS.values():
        assert (
            policy["podSelector"]["matchLabels"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        )
    [service] = [doc["spec"] for doc in MANIFESTS if doc["kind"] == "Service"]
    chosen = [
        name
        for name, workload in WORKLOADS.items()
        if service["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert chosen == ["rollwave-serve"]


def test_the_network_policy_allows_dns_on_all_common_ports() -> None:
    [policy] = [doc["spec"] for doc in MANIFESTS if doc["kind"] == "NetworkPolicy"]
    anywhere = [each["ports"] for each in policy["egress"] if "to" not in each]
    allowed = {(port["protocol"], port["port"]) for ports in anywhere for port in ports}
    assert allowed >= {(protocol, port) for protocol in ("UDP", "TCP") for port in (53, 5353)}


def test_secrets_are_referenced_and_not_included() -> None:
    assert "Secret" not in {doc["kind"] for doc in MANIFESTS}
    example = {doc["metadata"]["name"]: doc["stringData"] for doc in documents(EXAMPLE) if doc["kind"] == "Secret"}
    named = {
        source["secretRef"]["name"]
        for workload in WORKLOADS.values()
        for container in workload["spec"]["template"]["spec"]["containers"]
        for source in container["envFrom"]
        if "secretRef" in source
    }
    assert named | {"rollwave-ca"} == example.keys()
    [settings] = [doc["data"] for doc in MANIFESTS if doc["kind"] == "ConfigMap"]
    known = {field.alias for field in Settings.model_fields.values()}
    assert settings.keys() <= known
    assert set().union(*(example[name] for name in named)) <= known

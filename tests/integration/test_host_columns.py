"""Values that a host's own tables refuse: the API names the field (422) or the key (409), and never answers 500."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from pydantic import BaseModel

from rollwave.api.schemas.campaigns import Abort, CampaignIn
from rollwave.api.schemas.firmware import FirmwareIn
from rollwave.api.schemas.registry import DeviceIn
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.new_campaign import create_campaign
from rollwave.store.database import create_pool
from rollwave.store.new_campaigns import NewCampaign
from tests.api import CAMPAIGNS, CUSTOMER, assert_problem
from tests.engine import connect
from tests.host.platform import HERE, Host, make_host
from tests.installation import Installation, installed
from tests.roles import roles_restored
from tests.support import psql

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

LONG = "x" * 120
"""A valid id that is too long for a host's column of 100 characters."""


@dataclass(frozen=True, slots=True)
class Narrow:
    """A host with narrow columns, and ``rollwave serve`` on it."""

    host: Host
    installation: Installation
    http: httpx2.Client

    def refused(self, answer: httpx2.Response, field: str, *words: str, location: str = "body") -> None:
        """Assert that the answer is a 422 of one line that names this field everywhere."""
        problem = assert_problem(answer, 422, "invalid-input")
        [error] = problem["errors"]
        assert (error["field"], error["location"]) == (field, location)
        assert problem["detail"].startswith(f"{field}: ")
        for each in words:
            assert each in problem["detail"]
        assert "\n" not in problem["detail"]

    def firmware(self, **values: object) -> httpx2.Response:
        """Register firmware with a new version and these values."""
        number = len(self.http.get("/firmware", params={"limit": 1000}).json()["firmware_versions"])
        body = {"version": f"7.{number}", "file_url": f"https://files.invalid/7.{number}"}
        return self.http.post("/firmware", json=body | values)

    def campaign(self, **values: object) -> httpx2.Response:
        """Create a campaign with a new name and these values."""
        total = self.http.get(CAMPAIGNS, params={"limit": 1}).json()["total"]
        body = {"name": f"campaign {total}", "firmware_version_id": 1, "target_group_id": "all"}
        return self.http.post(CAMPAIGNS, json=body | values)

    def created(self, **values: object) -> str:
        """The path of a campaign that was created."""
        answer = self.campaign(**values)
        assert answer.status_code == 201, answer.text
        return f"{CAMPAIGNS}/{answer.json()['id']}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def narrow(postgres_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Narrow]:
    name = "narrow_host"
    assert template  # The engine's roles are there, and stay.
    async with roles_restored(postgres_url):
        async with connect(postgres_url) as root:
            await root.execute(f"CREATE DATABASE {name}")
        host = await make_host(postgres_url.replace("@/postgres?", f"@/{name}?"))
        async with connect(host.owner) as owner:
            await owner.execute((HERE / "narrow.sql").read_text())
        host.migrate("--grant-to", "rollwave_worker")
        log = tmp_path_factory.mktemp("narrow") / "log"
        with EmbeddedBroker() as broker:
            async with installed(host.worker, broker.url, log) as installation:
                url, key = (installation.env[each] for each in ("ROLLWAVE_API_URL", "ROLLWAVE_API_KEY"))
                with httpx2.Client(
                    base_url=f"{url}{CUSTOMER}", headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
                ) as http:
                    yield Narrow(host, installation, http)
        assert "Traceback" not in log.read_text()
        async with connect(postgres_url) as root:
            await root.execute(f"DROP DATABASE {name} WITH (FORCE)")


TABLES: dict[type[BaseModel], str] = {
    FirmwareIn: "firmware_versions",
    CampaignIn: "ota_campaigns",
    DeviceIn: "devices",
    Abort: "ota_campaigns",
}
COLUMNS: dict[tuple[type[BaseModel], str], str] = {(Abort, "reason"): "status_reason"}
"""Fields whose column has another name."""


def _largest() -> Iterator[Any]:
    """For each field of each request, the largest value that the API's own rules allow."""
    for model in TABLES:
        for field, schema in model.model_json_schema()["properties"].items():
            value = _largest_of(field, schema)
            if value is not None:
                yield pytest.param(model, field, value, id=f"{model.__name__}.{field}")


def _largest_of(field: str, schema: dict[str, Any]) -> Any:
    kind: dict[str, Any] = next((each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"), {})
    if field == "file_url":
        return "https://files.invalid/".ljust(kind["maxLength"], "x")
    if field in {"firmware_version_id", "target_group_id", "policy"} or "enum" in kind:
        return None  # An id or a name that does not exist is not found.
    return "x" * kind["maxLength"] if "maxLength" in kind else kind.get("maximum")


@pytest.mark.parametrize(("model", "field", "value"), list(_largest()))
def test_the_largest_value_of_each_field_is_stored_or_refused_by_name(
    narrow: Narrow, model: type[BaseModel], field: str, value: Any
) -> None:
    fits = _fits(narrow.host, TABLES[model], COLUMNS.get((model, field), field), value)
    if model is FirmwareIn:
        answer = narrow.firmware(**{field: value})
    elif model is CampaignIn:
        answer = narrow.campaign(**{field: value})
    elif model is DeviceIn:
        answer = narrow.http.put("/devices/dev-1", json={field: value})
    else:
        answer = narrow.http.post(f"{narrow.created()}/abort", json={field: value})
    if fits:
        assert answer.is_success, answer.text
    else:
        narrow.refused(answer, field)


def _fits(host: Host, table: str, column: str, value: Any) -> bool:
    """Whether the catalog says that the value fits."""
    found = psql(
        host.root,
        "SELECT data_type, character_maximum_length FROM information_schema.columns"
        f" WHERE table_name = '{table}' AND column_name = '{column}'",
    )
    kind, width = found.split("|")
    if isinstance(value, str):
        return not width or len(value) <= int(width)
    return bool(value <= {"smallint": 2**15 - 1, "integer": 2**31 - 1}.get(kind, value))


def test_a_version_that_is_too_long_is_named(narrow: Narrow) -> None:
    answer = narrow.firmware(version="1" * 60)
    narrow.refused(answer, "version", "firmware_versions", "character varying(50)")


@pytest.mark.parametrize("again", ["other", "same"])
def test_a_version_is_registered_once_for_its_type(narrow: Narrow, again: str) -> None:
    first = narrow.firmware(version=f"2.5 {again}", device_type="pump")
    assert first.status_code == 201, first.text
    url = f"https://files.invalid/{again}" if again == "other" else first.json()["file_url"]
    second = narrow.firmware(version=f"2.5 {again}", device_type="pump", file_url=url)
    if again == "same":
        assert (second.status_code, second.json()["id"]) == (200, first.json()["id"])
    else:
        assert f"2.5 {again}" in assert_problem(second, 409, "conflict")["detail"]
    assert narrow.firmware(version=f"2.5 {again}", device_type="valve").status_code == 201


def test_a_violated_unique_key_of_the_host_is_a_conflict(narrow: Narrow) -> None:
    assert narrow.firmware(file_url="https://files.invalid/once").status_code == 201
    problem = assert_problem(narrow.firmware(file_url="https://files.invalid/once"), 409, "conflict")
    assert "firmware_versions" in problem["detail"]
    for name, key in (("of one name", "one_name"), ("pilot", "one_pilot")):
        assert narrow.campaign(name=name).status_code == 201
        problem = assert_problem(narrow.campaign(name=f"{name} 2" if key == "one_pilot" else name), 409, "conflict")
        assert key in problem["detail"]
        assert "ota_campaigns" in problem["detail"]


def test_a_unique_key_of_the_host_is_not_taken_for_an_idempotency_key(narrow: Narrow) -> None:
    assert narrow.campaign(name="once").status_code == 201
    body = {"name": "once", "firmware_version_id": 1, "target_group_id": "all"}
    answer = narrow.http.post(CAMPAIGNS, json=body, headers={"Idempotency-Key": "k1"})
    assert "one_name" in assert_problem(answer, 409, "conflict")["detail"]


@pytest.mark.parametrize("name", ["of one name, at once", "pilot at once"])
async def test_one_idempotency_key_creates_one_campaign_despite_a_unique_key_of_the_host(
    narrow: Narrow, name: str
) -> None:
    psql(narrow.host.root, "UPDATE ota_campaigns SET name = 'renamed ' || id WHERE name LIKE 'pilot%'")
    new = NewCampaign(name, 1, "all")
    async with create_pool(narrow.host.worker, size=8) as pool:
        asked = (create_campaign(pool, "north", new, actor="x", idempotency_key=name) for _ in range(8))
        assert len(set(await asyncio.gather(*asked))) == 1
    psql(narrow.host.root, f"UPDATE ota_campaigns SET name = 'renamed ' || id WHERE name = '{name}'")


def test_a_violated_check_names_its_field(narrow: Narrow) -> None:
    narrow.refused(narrow.firmware(version="3.0-beta"), "version", "no_betas", "firmware_versions")
    narrow.refused(
        narrow.http.put("/devices/dev-1", json={"device_type": "prototype 3"}), "device_type", "no_prototypes"
    )
    narrow.refused(narrow.http.put("/devices/new", json={"device_type": "prototype 3"}), "device_type", "no_prototypes")
    narrow.refused(narrow.campaign(rollout_strategy="canary", rollout_rate=2000), "rollout_strategy", "linear_only")


def test_a_violated_foreign_key_names_its_field(narrow: Narrow) -> None:
    narrow.refused(narrow.firmware(device_type="fridge"), "device_type", "known_kind")


def test_a_violated_domain_names_its_field(narrow: Narrow) -> None:
    psql(
        narrow.host.root,
        "INSERT INTO device_groups (tenant_id, group_id) VALUES ('north', 'a b') ON CONFLICT DO NOTHING",
    )
    psql(narrow.host.root, "INSERT INTO device_group_members VALUES ('north', 'a b', 'dev-1') ON CONFLICT DO NOTHING")
    narrow.refused(narrow.campaign(target_group_id="a b"), "target_group_id", "short_id")


def test_the_error_message_of_a_hosts_trigger_is_passed_on(narrow: Narrow) -> None:
    problem = assert_problem(narrow.firmware(description="unsigned"), 409, "conflict")
    assert "firmware must be signed" in problem["detail"]
    problem = assert_problem(narrow.http.put("/devices/unaudited", json={}), 409, "conflict")
    assert "devices must be audited" in problem["detail"]
    problem = assert_problem(narrow.http.put("/device-groups/logged", json={"device_ids": ["dev-1"]}), 409, "conflict")
    assert "group_log" in problem["detail"]


def test_a_campaign_that_a_trigger_refuses_to_start_is_unchanged(narrow: Narrow) -> None:
    path = narrow.created(name="holiday season")
    problem = assert_problem(narrow.http.post(f"{path}/start"), 409, "conflict")
    assert "no rollouts on holidays" in problem["detail"]
    assert narrow.http.get(path).json()["status"] == "CREATED"


def test_firmware_that_a_table_of_the_host_references_is_not_deleted(narrow: Narrow) -> None:
    used = narrow.firmware().json()["id"]
    psql(narrow.host.root, f"INSERT INTO shipped VALUES ({used})")
    problem = assert_problem(narrow.http.delete(f"/firmware/{used}"), 409, "conflict")
    assert "shipped" in problem["detail"]
    kept = narrow.firmware(version="kept 1").json()["id"]
    problem = assert_problem(narrow.http.delete(f"/firmware/{kept}"), 409, "conflict")
    assert "an auditor keeps this firmware" in problem["detail"]


def test_texts_of_the_engine_are_cut_to_the_hosts_columns(narrow: Narrow) -> None:
    path = narrow.created()
    assert narrow.http.post(f"{path}/start").json()["status"] == "RUNNING"
    assert narrow.http.post(f"{path}/pause").json()["status"] == "PAUSED"
    assert narrow.http.get(path).json()["status_reason"] == "paused by an operator"[:15]
    narrow.refused(narrow.http.post(f"{path}/abort", json={"reason": "y" * 16}), "reason", "status_reason")
    assert narrow.http.get(path).json()["status"] == "PAUSED"
    assert narrow.http.post(f"{path}/abort", json={"reason": "y" * 15}).json()["status"] == "ABORTED"
    assert narrow.http.get(path).json()["status_reason"] == "y" * 15
    history = narrow.http.get(f"{path}/events").json()["events"]
    assert [each["detail"].get("reason") for each in history if each["event"] == "paused"] == ["paused by an operator"]


def test_ids_that_are_too_long_are_named(narrow: Narrow) -> None:
    narrow.refused(narrow.http.put(f"/devices/{LONG}", json={}), "device_id", "devices", location="path")
    group = {"device_ids": ["dev-1"]}
    narrow.refused(narrow.http.put(f"/device-groups/{LONG}", json=group), "group_id", "device_groups", location="path")
    assert narrow.http.get(f"/devices/{LONG}").status_code == 404
    assert narrow.http.get(f"/device-groups/{LONG}").status_code == 404
    assert_problem(narrow.campaign(target_group_id=LONG), 404, "not-found")


@pytest.mark.parametrize("place", [0, 4321, 9999])
def test_of_many_group_members_the_one_that_is_too_long_is_named(narrow: Narrow, place: int) -> None:
    ids = [f"many-{number}" for number in range(10_000)]
    ids[place] = f"{place}{LONG}"
    answer = narrow.http.put("/device-groups/many", json={"device_ids": ids})
    narrow.refused(answer, "device_ids", ids[place], "devices.device_id")
    described = [{"device_id": each, "device_type": "pump"} for each in ids]
    answer = narrow.http.put("/device-groups/many", json={"device_ids": [], "devices": described})
    narrow.refused(answer, "devices", ids[place], "devices.device_id")
    assert narrow.http.get("/device-groups/many").status_code == 404


def test_of_many_device_types_the_one_that_is_too_long_is_named(narrow: Narrow) -> None:
    described = [{"device_id": f"dev-{number}", "device_type": "pump"} for number in range(1, 9)]
    described[5]["device_type"] = "t" * 60
    answer = narrow.http.put("/device-groups/few", json={"device_ids": [], "devices": described})
    narrow.refused(answer, "devices", "t" * 60, "devices.device_type")
    described[5]["device_type"] = "prototype"
    answer = narrow.http.put("/device-groups/few", json={"device_ids": [], "devices": described})
    narrow.refused(answer, "devices", "no_prototypes")


def test_an_import_names_the_member_that_is_too_long(narrow: Narrow) -> None:
    path = "/device-groups/imported/imports"
    path = f"{path}/{narrow.http.post(path).json()['import_id']}"
    for part in range(3):
        ids = [f"part-{part}-{number}" for number in range(6000)]
        if part == 1:
            ids[3000] = LONG
        assert narrow.http.post(f"{path}/devices", json={"device_ids": ids}).is_success
    narrow.refused(narrow.http.post(f"{path}/apply"), "device_ids", LONG)
    assert narrow.http.get("/device-groups/imported").status_code == 404
    assert narrow.http.delete(path).status_code == 204


def test_a_group_member_too_long_for_the_campaign_tables_is_named(narrow: Narrow) -> None:
    member = "m" * 90
    assert narrow.http.put("/device-groups/wide", json={"device_ids": ["dev-1", member]}).is_success
    problem = assert_problem(narrow.campaign(target_group_id="wide"), 409, "conflict")
    assert f"ota_device_status.device_id of this installation does not accept '{member}'" in problem["detail"]


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 2**53 - 1])
def test_ids_larger_than_the_hosts_integer_type_are_not_found(narrow: Narrow, number: int) -> None:
    for method, path in (
        ("GET", f"{CAMPAIGNS}/{number}"),
        ("GET", f"{CAMPAIGNS}/{number}/devices"),
        ("GET", f"{CAMPAIGNS}/{number}/events"),
        ("POST", f"{CAMPAIGNS}/{number}/start"),
        ("POST", f"{CAMPAIGNS}/{number}/pause"),
        ("POST", f"{CAMPAIGNS}/{number}/abort"),
        ("GET", f"/firmware/{number}"),
        ("DELETE", f"/firmware/{number}"),
    ):
        assert_problem(narrow.http.request(method, path), 404, "not-found")
    assert_problem(narrow.campaign(firmware_version_id=number), 404, "not-found")
    for path in ("/firmware", CAMPAIGNS):
        assert narrow.http.get(path, params={"cursor": number}).is_success


def test_the_command_line_names_the_refused_field_in_one_line(narrow: Narrow, tmp_path: Path) -> None:
    ids = tmp_path / "devices.csv"
    ids.write_text(f"device_id\ndev-1\n{LONG}\n")
    for field, arguments in (
        ("version", ("firmware", "add", "https://files.invalid/cli", "--version", "1" * 60)),
        ("device_ids", ("device-group", "put", "cli", "dev-1", LONG)),
        ("device_ids", ("device-group", "import", "cli", str(ids))),
        ("name", ("campaign", "create", LONG, "--firmware", "id:1", "--group", "all")),
    ):
        done = narrow.installation.run(*arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        errors = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")]
        assert len(errors) == 1, done.stderr
        assert errors[0].startswith(f"error: {field}: ")


def test_an_api_key_for_a_tenant_id_too_long_for_the_host_is_refused_in_one_line(narrow: Narrow) -> None:
    done = narrow.installation.run("apikey", "create", "--tenant", LONG, "--role", "viewer")
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr

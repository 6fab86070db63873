"""`rollwave doctor` on real servers: a healthy installation, and each problem that it can find."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.errors import DatabaseUnavailable
from rollwave.store import health
from rollwave.store.database import create_pool
from tests.engine import connect, worker
from tests.shipped import ENGINE, ShippedMosquitto, password
from tests.support import eventually, free_port, psql, rollwave

A, B = "north/device/dev-1", "south/device/dev-1"
LOGINS = ("--device-a", f"{A}:{password(A)}", "--device-b", f"{B}:{password(B)}")


@dataclass(frozen=True, slots=True)
class Examination:
    """The doctor's findings, by check, and its exit code."""

    code: int
    findings: dict[str, dict[str, str]]

    def states(self) -> dict[str, str]:
        """The checks that are not ok."""
        return {name: each["state"] for name, each in self.findings.items() if each["state"] != "ok"}

    def says(self, check: str, state: str, *words: str) -> bool:
        """Check a finding's state, and that its text or hint contains these words."""
        found = self.findings[check]
        examination = f"{found['text']} {found['mend']}"
        assert found["state"] == state, found
        assert all(word in examination for word in words), found
        return True


def examine(*arguments: str, **env: str) -> Examination:
    done = rollwave("doctor", "-o", "json", *arguments, env=env)
    assert "Traceback" not in done.stderr, done.stderr
    document = json.loads(done.stdout)
    states = [each["state"] for each in document["findings"]]
    assert document["problems"] == states.count("problem")
    assert done.returncode == (1 if document["problems"] else 0)
    assert all(each["mend"] for each in document["findings"] if each["state"] != "ok"), document
    return Examination(done.returncode, {each["check"]: each for each in document["findings"]})


def engine_login(broker: ShippedMosquitto) -> dict[str, str]:
    return {
        "MQTT_BROKER_URL": broker.url,
        "MQTT_CA_CERT": str(broker.ca_cert),
        "MQTT_USERNAME": ENGINE,
        "MQTT_PASSWORD": password(ENGINE),
    }


async def test_the_doctor_reports_a_database_lost_during_a_check_as_unavailable(database: str) -> None:
    async with create_pool(database) as pool, connect(database) as host, connect(database) as holder:

        async def terminated() -> bool:
            waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            found = await host.fetch(f"SELECT pg_terminate_backend(pid) FROM ({waiting}) AS waiting")
            return bool(found)

        async with holder.transaction():
            await holder.execute("LOCK TABLE rollwave_listener_slots")
            checking = asyncio.create_task(health.slots_alive(pool, 1))
            await eventually(terminated, what="the check waits for the table, and its connection is ended")
            with pytest.raises(DatabaseUnavailable, match="PostgreSQL cannot be reached"):
                await checking


async def test_the_doctor_finds_no_problem_in_a_healthy_installation(
    database: str, shipped_mosquitto: ShippedMosquitto, tmp_path: Path
) -> None:
    env = engine_login(shipped_mosquitto)
    log = tmp_path / "worker.log"
    async with worker(database, shipped_mosquitto.url, log, **env) as running:
        examination = examine(*LOGINS, DATABASE_URL=database, **env)
        assert examination.states() == {"login": "warning"}  # The embedded server's superuser.
        assert examination.says("login", "warning", "superuser", "--grant-to")
        assert len(examination.findings) > 15
        assert running.output().count('"ota_superuser_login"') == 1
        printed = rollwave("doctor", *LOGINS, env={"DATABASE_URL": database, **env})
    assert printed.returncode == 0
    assert "secret" not in printed.stdout + printed.stderr + running.output()
    lines = printed.stdout.splitlines()
    assert lines[0] == "ok       settings: can be read"
    assert [line for line in lines if line.startswith("         fix: ")]
    assert {line.split()[0] for line in lines} == {"ok", "warning", "fix:"}


@pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)
async def test_the_doctor_does_not_warn_about_the_engines_own_login(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    psql(database, "CREATE ROLE rollwave_modest LOGIN NOINHERIT")
    own = database.replace("postgres@", "rollwave_modest@")
    env = {"DATABASE_URL": own, "MQTT_BROKER_URL": broker.url}
    examination = examine(**env)
    assert examination.says("taking pulse_app", "problem", "permission denied", "--grant-to")
    assert examination.says("login", "ok")
    granted = rollwave("migrate", "--grant-to", "rollwave_modest", env={"DATABASE_URL": database})
    assert granted.returncode == 0, granted.stderr
    examination = examine(**env)
    assert examination.states() == {"listeners": "warning", "strangers": "warning"}
    assert examination.says("listeners", "warning", "rollwave worker")
    assert examination.says("strangers", "warning", "without a user name", "allow_anonymous false")
    async with worker(own, broker.url, tmp_path / "worker.log") as running:
        assert "ota_superuser_login" not in running.output()
    psql(database, "ALTER ROLE rollwave_modest BYPASSRLS")
    assert examine(**env).says("login", "warning", "BYPASSRLS")


def test_the_doctor_reports_a_database_without_schema(empty_database: str, broker: EmbeddedBroker) -> None:
    examination = examine(DATABASE_URL=empty_database, MQTT_BROKER_URL=broker.url)
    assert examination.says("schema", "problem", "no schema of Rollwave", "rollwave migrate")
    assert "row-level security" not in examination.findings


@pytest.mark.parametrize(
    ("damage", "check", "state", "words"),
    [
        ("DELETE FROM rollwave_migrations WHERE version > 1", "schema", "problem", ["it is at 1", "rollwave migrate"]),
        (
            "INSERT INTO rollwave_migrations (version, name, checksum) VALUES (9000, 'x', '')",
            "schema",
            "problem",
            ["Upgrade"],
        ),
        (
            "ALTER TABLE ota_device_status DISABLE ROW LEVEL SECURITY",
            "row-level security",
            "problem",
            ["not on for ota_device_status", "rollwave migrate"],
        ),
        (
            "ALTER TABLE devices NO FORCE ROW LEVEL SECURITY",
            "row-level security",
            "problem",
            ["not forced on devices", "rollwave migrate"],
        ),
        (
            "INSERT INTO tenants VALUES ('north'); CREATE POLICY everybody ON tenants USING (true)",
            "row-level security",
            "problem",
            ["sees rows of tenants", "pg_policies"],
        ),
        ("DROP TABLE ota_quarantine", "row-level security", "problem", ["no table ota_quarantine"]),
        (
            "REVOKE EXECUTE ON FUNCTION rollwave_due_campaigns_2() FROM pulse_app",
            "campaigns due",
            "problem",
            ["permission denied"],
        ),
        (
            "GRANT EXECUTE ON FUNCTION rollwave_due_campaigns_2() TO PUBLIC; GRANT INSERT ON ota_quarantine TO PUBLIC",
            "rights",
            "problem",
            [
                "PUBLIC has EXECUTE on the function rollwave_due_campaigns_2",
                "PUBLIC has INSERT on ota_quarantine",
                "Run `rollwave migrate`",
            ],
        ),
    ],
    ids=["old", "newer", "rls-off", "not-forced", "leak", "missing", "due", "others"],
)
def test_the_doctor_reports_a_damaged_schema(
    database: str, broker: EmbeddedBroker, damage: str, check: str, state: str, words: list[str]
) -> None:
    psql(database, damage)
    examination = examine(DATABASE_URL=database, MQTT_BROKER_URL=broker.url)
    assert examination.says(check, state, *words)
    # The check of rights, too, lists what migrate repairs.
    assert {name for name, was in examination.states().items() if was == "problem"} - {"rights"} == {check} - {"rights"}


@pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)
def test_the_doctor_lists_adopted_tables(empty_database: str, broker: EmbeddedBroker) -> None:
    psql(empty_database, "CREATE TABLE tenants (tenant_id text PRIMARY KEY)")
    env = {"DATABASE_URL": empty_database, "MQTT_BROKER_URL": broker.url}
    assert rollwave("migrate", env=env).returncode == 0
    assert examine(**env).says("row-level security", "warning", "adopted tables: tenants", "--force-rls")
    assert rollwave("migrate", "--force-rls", env=env).returncode == 0
    assert examine(**env).says("row-level security", "ok")


def test_the_doctor_reports_unreachable_servers(database: str, broker: EmbeddedBroker) -> None:
    examination = examine(DATABASE_URL=database, MQTT_BROKER_URL=f"mqtt://127.0.0.1:{free_port()}")
    assert examination.says("broker", "problem", "MQTT_BROKER_URL")
    examination = examine(MQTT_BROKER_URL=broker.url)
    assert examination.says("database", "problem", "DATABASE_URL is not set")
    assert examination.says("broker", "ok")
    examination = examine(DATABASE_URL="postgresql://x:hidden@127.0.0.1:1/none", MQTT_BROKER_URL=broker.url)
    assert examination.says("database", "problem", "DATABASE_URL")
    assert "hidden" not in str(examination)
    examination = examine(DATABASE_URL=database, MQTT_BROKER_URL=broker.url, OTA_TICK_INTERVAL="soon")
    assert examination.says("settings", "problem", "OTA_TICK_INTERVAL")
    examination = examine(DATABASE_URL=database, MQTT_BROKER_URL=broker.url, MQTT_CA_CERT="/nowhere.pem")
    assert examination.says("broker's settings", "warning", "MQTT_CA_CERT")
    assert examination.says("broker", "ok")


def test_the_doctor_reports_a_broker_that_refuses_the_engine(
    database: str, shipped_mosquitto: ShippedMosquitto
) -> None:
    env = engine_login(shipped_mosquitto)
    examination = examine(DATABASE_URL=database, **env | {"MQTT_PASSWORD": "mistyped"})
    assert examination.says("broker", "problem", "MQTT_PASSWORD")
    assert "mistyped" not in str(examination)
    examination = examine(DATABASE_URL=database, **env | {"MQTT_USERNAME": A, "MQTT_PASSWORD": password(A)})
    assert examination.says("engine's commands", "problem", "deploy/")
    examination = examine("--device-a", f"{A}:mistyped", *LOGINS[2:], DATABASE_URL=database, **env)
    assert examination.says(f"{A}, own topics", "problem")


@pytest.mark.parametrize(
    ("acl", "wrong"),
    [
        ("topic readwrite tenant/#\n", {"forging reports", "forging commands", "listening in"}),
        ("pattern write tenant/%u/ota/status\ntopic read tenant/+/device/+/ota\n", {"listening in"}),
        ("topic write tenant/+/device/+/ota/status\npattern read tenant/%u/ota\n", {"forging reports"}),
        (
            "topic write tenant/+/device/+/ota\npattern write tenant/%u/ota/status\npattern read tenant/%u/ota\n",
            {"forging commands"},
        ),
        ("pattern read tenant/%u/ota\n", {"own topics"}),
    ],
    ids=["everything", "listening", "reports", "commands", "too-little"],
)
def test_the_doctor_reports_wrong_broker_permissions(database: str, tmp_path: Path, acl: str, wrong: set[str]) -> None:
    engine = "user rollwave\ntopic write tenant/+/device/+/ota\ntopic read tenant/+/device/+/ota/status\n"
    users = "".join(f"user {user}\n{acl}" for user in (A, B) if "topic" in acl)
    with ShippedMosquitto(tmp_path, acl=f"{acl if not users else ''}{users}{engine}") as broker:
        examination = examine(*LOGINS, DATABASE_URL=database, **engine_login(broker))
    problems = {name.partition(", ")[2] for name, state in examination.states().items() if state == "problem"}
    assert problems == wrong
    assert all("deploy/" in each["mend"] for each in examination.findings.values() if each["state"] == "problem")


def test_the_doctor_reports_retained_reports(database: str, tmp_path: Path) -> None:
    with ShippedMosquitto(tmp_path, retain=True) as broker:
        examination = examine(*LOGINS, DATABASE_URL=database, **engine_login(broker))
        again = examine(*LOGINS, DATABASE_URL=database, **engine_login(broker))
    assert examination.code == 0
    for device in (A, B):
        assert examination.says(
            f"{device}, retaining reports", "warning", "stores", "ignores", "retain_available false"
        )
    assert again.states() == examination.states(), "no message was left in the broker"


def test_devices_are_named_so_that_the_doctor_can_tell_them_apart(
    database: str, shipped_mosquitto: ShippedMosquitto, tmp_path: Path
) -> None:
    env = {"DATABASE_URL": database, **engine_login(shipped_mosquitto)}
    same = "north/device/dev-2"
    secret = tmp_path / "login"
    secret.write_text(f"{same}:{password(same)}\n")
    examination = examine(*LOGINS[:2], "--device-b", f"@{secret}", **env)
    assert examination.states() == {"login": "warning", "listeners": "warning", "devices": "warning"}
    assert examination.says("devices", "warning", "two tenants")
    for wrong, code in ((["--device-a", "a:b"], 2), (["--device-a", "a", "--device-b", "b:c"], 2)):
        assert rollwave("doctor", *wrong, env=env).returncode == code
    unclear = rollwave("doctor", "--device-a", "a/b:x", "--device-b", "b:c", env=env)
    assert (unclear.returncode, "--tenant" in unclear.stderr) == (1, True)


@pytest.mark.parametrize(
    ("acl", "logins", "state", "words"),
    [
        (None, (), "warning", ["unknown", "--device-a"]),
        (None, LOGINS, "ok", ["arrive"]),
        ("user rollwave\ntopic write tenant/#\ntopic read tenant/#\n", (), "ok", ["arrive"]),
        ("user rollwave\ntopic read tenant/#\n", (), "warning", ["unknown"]),
        (
            "pattern write tenant/%u/ota/status\npattern read tenant/%u/ota\nuser rollwave\ntopic read tenant/#\n",
            LOGINS,
            "problem",
            ["do not arrive", "deploy/"],
        ),
    ],
    ids=["shipped", "shipped-with-devices", "open", "denied", "denied-with-devices"],
)
def test_on_mqtt_3_the_doctor_checks_publishing_by_what_arrives(
    database: str, tmp_path: Path, acl: str | None, logins: tuple[str, ...], state: str, words: list[str]
) -> None:
    with ShippedMosquitto(tmp_path, acl=acl) as broker:
        examination = examine(*logins, DATABASE_URL=database, ROLLWAVE_MQTT_PROTOCOL="3.1.1", **engine_login(broker))
    assert examination.says("engine's commands", state, *words)
    assert "may publish" not in examination.findings["engine's commands"]["text"]

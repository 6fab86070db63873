"""The compose stack: every command that deploy/README.md tells an operator to type, and an orderly stop."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.embedded.process import ServerProcess
from tests.compose import Stack, StackMosquitto, StackPrometheus, listens, stack_postgres
from tests.shipped import DEPLOY
from tests.support import Running, eventually, psql, rollwave, rollwave_running

README = (DEPLOY / "README.md").read_text("utf-8")
IN_SERVICE = re.compile(
    r"docker compose (?:exec -T (?P<exec>\w+) rollwave|run --rm (?P<run>operator)) (?P<arguments>.*)"
)
SERVICES = ("serve", "worker", "fleet")
READY = {"database", "schema", "identity", "broker", "reports"}


@pytest.fixture
def stack_mosquitto(stack: Stack) -> Iterator[StackMosquitto]:
    with StackMosquitto(stack) as broker:
        yield broker


@pytest.fixture
def database(stack: Stack) -> Iterator[EmbeddedPostgres]:
    with stack_postgres(stack) as server:
        yield server


@pytest.fixture
async def running(
    stack: Stack, database: EmbeddedPostgres, stack_mosquitto: StackMosquitto
) -> AsyncIterator[dict[str, Running]]:
    """The services that still run after `migrate` has finished."""
    assert database.running
    assert stack_mosquitto.pid
    for expected in ("now at schema", "up to date"):
        migrated = rollwave(*stack.command("migrate"), env=stack.settings("migrate"))
        assert migrated.returncode == 0, migrated.stderr
        assert expected in migrated.stdout
    artifacts = _artifacts(stack)
    async with AsyncExitStack() as services:
        services.callback(artifacts.stop)
        yield {
            name: await services.enter_async_context(
                rollwave_running(
                    *stack.command(name),
                    log=stack.folder / f"{name}.log",
                    env=stack.settings(name) | {"OTA_TICK_INTERVAL": "0.5"},
                )
            )
            for name in SERVICES
        }


@pytest.fixture
def stack_prometheus(stack: Stack) -> Iterator[StackPrometheus]:
    server = StackPrometheus(stack)
    yield server
    server.stop()


def _artifacts(stack: Stack) -> ServerProcess:
    python, *arguments = stack.services["artifacts"]["entrypoint"]
    assert python == "python3"
    here = {"8080": str(stack.ports["artifacts"]), "/demo": str(stack.folder / "demo")}
    server = ServerProcess(
        [sys.executable, *(here.get(word, word) for word in arguments)], log=stack.folder / "artifacts.log"
    )
    server.wait_until(lambda: listens(stack.ports["artifacts"]), timeout=30, what="artifacts")
    return server


def ready(stack: Stack, service: str) -> dict[str, float]:
    """The metric ``rollwave_ready`` of a service, by check."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{stack.ports[service]}/metrics", timeout=12) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    return {
        name: float(value) for name, value in re.findall(r'^rollwave_ready{check="(\w+)"} (.*)$', text, re.MULTILINE)
    }


async def all_ready(stack: Stack) -> None:
    for service in ("serve", "worker"):
        check = partial(_is_ready, stack, service)
        await eventually(check, timeout=60, what=f"{service} is ready")


def _is_ready(stack: Stack, service: str) -> bool:
    return ready(stack, service) == dict.fromkeys(READY, 1.0)


def run(stack: Stack, service: str, *arguments: str, key: str = "") -> str:
    """Run a ``rollwave`` command in a service's container."""
    settings = stack.settings(service) | {"ROLLWAVE_API_KEY": key}
    settings |= {"ROLLWAVE_API_URL": f"http://127.0.0.1:{stack.ports['serve']}"}
    here = [word.replace("/demo/", f"{stack.folder}/demo/") for word in arguments]
    here = [word.replace("artifacts:8080", f"127.0.0.1:{stack.ports['artifacts']}") for word in here]
    done = rollwave(*here, env=settings, timeout=120)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


async def test_every_command_in_the_deployment_readme_works(
    stack: Stack, running: dict[str, Running], database: EmbeddedPostgres
) -> None:
    await all_ready(stack)
    key, ran = "", 0
    for line in "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).splitlines():
        if found := IN_SERVICE.search(line):
            arguments = shlex.split(found["arguments"].rstrip(")"))
            printed = await asyncio.to_thread(run, stack, found["exec"] or found["run"], *arguments, key=key)
            key = printed.strip() if line.startswith("export ROLLWAVE_API_KEY=") else key
            ran += 1
    assert ran == 6
    superuser = database.url.replace("port=5432", f"port={stack.ports['postgres']}")
    fleet = superuser.replace("/postgres?", "/rollwave?")
    assert psql(fleet, "SELECT status, succeeded + failed FROM ota_campaigns") == "COMPLETED|100"
    assert (
        psql(
            fleet,
            "SELECT DISTINCT usename, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE client_addr IS NOT NULL",
        )
        == "rollwave_engine|t"
    )
    await stops_in_order(running)


async def test_a_device_with_its_own_login_updates_and_survives_a_broker_restart(
    stack: Stack,
    running: dict[str, Running],
    stack_mosquitto: StackMosquitto,
    stack_prometheus: StackPrometheus,
    tmp_path: Path,
) -> None:
    user, password = stack.prepare("--device", "demo", "pump-1").split()
    stack.install_keys()
    stack_mosquitto.reload()
    await all_ready(stack)
    login = stack.settings("fleet") | {"MQTT_USERNAME": user, "MQTT_PASSWORD": password}
    state = str(tmp_path / "state")
    device = ("device", "run", "--tenant", "demo", "--device", "pump-1", "--state", state)
    async with rollwave_running(*device, log=tmp_path / "device.log", env=login):
        key = run(stack, "serve", "apikey", "create", "--tenant", "demo", "--role", "operator").strip()
        (stack.folder / "demo" / "pumps.csv").write_text("device_id\npump-1\n")
        for command in (
            "device-group import pumps /demo/pumps.csv",
            "firmware add /demo/firmware.bin --url http://artifacts:8080/firmware.bin --version 3",
            "campaign create Pumps --firmware 3 --group pumps --start",
            "campaign watch 1 --timeout 60",
        ):
            await asyncio.to_thread(run, stack, "operator", *command.split(), key=key)
    await monitored(stack_prometheus)
    stack_mosquitto.stop()
    pending = 'ALERTS{alertname="RollwaveNotReady", check="broker"}'
    await eventually(lambda: len(stack_prometheus.ask(pending)) == 2, timeout=60, what="the alert of both processes")
    assert ready(stack, "worker")["broker"] == 0.0
    assert ready(stack, "worker")["database"] == 1.0
    await asyncio.to_thread(run, stack, "operator", "campaign", "list", key=key)
    assert running["worker"].process.returncode is None
    stack_mosquitto.start()
    await all_ready(stack)


async def monitored(prometheus: StackPrometheus) -> None:
    """Check that Prometheus scrapes both processes, no alert is raised, and each dashboard panel has data."""
    up = 'sum by (service) (up{job="rollwave"})'
    await eventually(
        lambda: (
            {each["metric"]["service"]: each["value"][1] for each in prometheus.ask(up)}
            == {"serve": "1", "worker": "1"}
        ),
        what="Prometheus reads both",
    )
    await eventually(lambda: not prometheus.ask("ALERTS"), what="no alert is about to be raised")
    board = json.loads((DEPLOY / "compose" / "grafana" / "rollwave.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    for query in queries:
        here = query.replace("$__rate_interval", "1m").removesuffix("> 0")
        await eventually(partial(prometheus.ask, here), what=f"data for {here}")


async def stops_in_order(running: dict[str, Running]) -> None:
    for service in running.values():
        service.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        codes = await asyncio.gather(*(service.process.wait() for service in running.values()))
    assert codes == [0, 0, 0]

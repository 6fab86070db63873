"""Real `rollwave worker` processes over a database and a broker, and what all of them use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx2

from bench.lab import Database, Lab, settled
from bench.machine import Used, cpu, cpu_of_family, memory
from rollwave.store.database import Pool
from tests.support import eventually, free_port, rollwave_running


@dataclass(frozen=True, slots=True)
class Stage:
    """Workers that are subscribed, or stand by for the one that is."""

    pool: Pool
    port: int
    workers: tuple[int, ...]
    metrics: int
    """Where the first worker tells its metrics."""
    broker: int
    postgres: int

    def used(self) -> Used:
        """CPU seconds so far, without the devices'."""
        return Used(sum(cpu(pid) for pid in self.workers), cpu_of_family(self.postgres), cpu(self.broker))

    @property
    def peak_memory(self) -> float:
        """MB, of the largest worker."""
        return max(memory(pid)[1] for pid in self.workers)

    async def metric(self, name: str) -> float:
        """What the first worker tells of this metric, its labels added up."""
        async with httpx2.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{self.metrics}/metrics")
        samples = (
            line.rpartition(" ") for line in answer.text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))
        )
        return sum(float(value) for _, _, value in samples)

    async def looked_at(self) -> None:
        """Wait until every running campaign has been looked at by a worker."""
        unseen = "SELECT NOT EXISTS (SELECT FROM ota_campaigns WHERE status = 'RUNNING' AND reconciled_at IS NULL)"
        await eventually(lambda: self.pool.fetchval(unseen), timeout=120, what="campaigns looked at")


@asynccontextmanager
async def staged(
    lab: Lab,
    database: Database,
    broker: str = "",
    *,
    workers: int = 1,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Stage]:
    """Start a broker, and so many workers with these settings of theirs."""
    assert lab.postgres.pid
    async with AsyncExitStack() as stack:
        at = stack.enter_context(lab.broker(broker))
        env = {"DATABASE_URL": database.url, "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{at.port}", **(settings or {})}
        ports = [free_port() for _ in range(workers)]
        running = []
        for number, port in enumerate(ports):
            log = lab.folder / f"worker-{number}.log"
            log.unlink(missing_ok=True)
            started = rollwave_running("worker", "--port", str(port), log=log, env=env)
            running.append(await stack.enter_async_context(started))
        slots = int(env.get("ROLLWAVE_LISTENER_SLOTS", "1"))

        def subscribed() -> bool:
            return sum(each.output().count("ota_status_listener_subscribed") for each in running) >= slots

        await eventually(subscribed, timeout=60, what="workers subscribed")
        await settled(database.pool)
        pids = tuple(each.process.pid for each in running)
        yield Stage(database.pool, at.port, pids, ports[0], at.pid, lab.postgres.pid)

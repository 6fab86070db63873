"""Rollwave runs over-the-air firmware campaigns. This is what a host imports:

await asyncio.gather(
worker_loop(run_ota_campaign_tick, pool, interval=10),  # pool: asyncpg.Pool
run_ota_status_listener(pool),
)
"""

from rollwave.engine.tick import run_ota_campaign_tick, run_ota_status_listener, worker_loop

__all__ = ["run_ota_campaign_tick", "run_ota_status_listener", "worker_loop"]

"""Rollwave runs over-the-air firmware campaigns. This is what a host imports:

    await asyncio.gather(
        worker_loop(run_ota_campaign_tick, pool, interval=10),  # pool: asyncpg.Pool
        run_ota_status_listener(pool),
    )

Everything else in the package may change with any release.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rollwave.engine.worker.campaign_overview import campaign_overview
    from rollwave.engine.worker.embedding import run_ota_campaign_tick, run_ota_status_listener, worker_loop
    from rollwave.engine.worker.readiness import readiness
    from rollwave.settings import Settings
else:
    _HOMES = {
        "campaign_overview": "rollwave.engine.worker.campaign_overview",
        "readiness": "rollwave.engine.worker.readiness",
        "Settings": "rollwave.settings",
    }

    def __getattr__(name: str) -> Any:
        # Only when asked for: the command line's help need not wait for the engine.
        if name in __all__:
            return getattr(import_module(_HOMES.get(name, "rollwave.engine.worker.embedding")), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Settings",
    "campaign_overview",
    "readiness",
    "run_ota_campaign_tick",
    "run_ota_status_listener",
    "worker_loop",
]

"""A campaign over a million devices whose policy chooses them by a selector and splits them by three labels."""

from __future__ import annotations

import asyncio
import time

from bench import load
from bench.million import CAMPAIGNS, GROUP, MILLION, serving
from bench.rates import TIMEOUT_SECONDS
from bench.session import Session
from tests.support import eventually

ATTRIBUTES = (
    "jsonb_build_object('site', 'site-' || n % 1000, 'ring', CASE WHEN n % 100 = 0 THEN 'canary' ELSE 'all' END,"
    " 'hardware_revision', 'r' || n % 5, 'region', 'region-' || n % 20, 'model', 'm' || n % 3)"
)

POLICY = {
    "version": 1,
    "waves": [
        {"name": "canary", "select": "ring == canary and hardware_revision in (r1, r2)"},
        {"name": "early", "size": "5%"},
        {"name": "rest"},
    ],
    "guardrails": [
        {"name": "by-hardware", "threshold": "5%", "scope": "segment", "per": ["hardware_revision", "region", "model"]}
    ],
}


async def measure(session: Session) -> None:
    """From the request to the last device that has its place, while a worker does nothing else."""
    number = min(MILLION, session.options.largest)
    session.say(f"targeting: registering {number:,} devices with labels")
    async with session.lab.database() as database:
        firmware = await load.registry(database.pool, number, GROUP, attributes=ATTRIBUTES)
        session.say("targeting: by a policy, over the API")
        body = {"name": "large", "firmware_version_id": firmware, "target_group_id": GROUP, "policy": POLICY}
        async with serving(session, database) as client:
            started = time.perf_counter()
            answer = await client.post(CAMPAIGNS, json=body)
            assert answer.status_code in {201, 202}, answer.text
            path = f"{CAMPAIGNS}/{answer.json()['id']}"

            async def placed() -> bool:
                await asyncio.sleep(0.1)
                campaign = (await client.get(path)).json()
                return bool(campaign["targeted_devices"] is None and campaign["status_breakdown"]["PENDING"] == number)

            await eventually(placed, timeout=TIMEOUT_SECONDS, what="every device has its place")
            session.report.add("targeting", time.perf_counter() - started, f"{number:,} devices")

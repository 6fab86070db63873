"""Operators at work during a schedule: they halt, freeze, promote, release, edit, retry, and let campaigns end."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from rollwave.domain.policy.document.text import Format
from rollwave.domain.role import Role
from rollwave.engine.operations import cancel_campaign, pause_campaign, release_segment, start_campaign
from rollwave.engine.policies import Edit, edit_policy
from rollwave.engine.promote import promote_wave
from rollwave.engine.retry import retry_failed
from rollwave.errors import Conflict, DatabaseUnavailable, Forbidden, InvalidInput, NotFound
from rollwave.settings import Settings
from rollwave.store import brakes
from rollwave.store.database import Pool, create_pool
from rollwave.store.outage import CONNECTION_TROUBLE
from tests.chaos.documents import EDITS, Act, Json, changed, edited, without_windows
from tests.engine import connect

ACTOR, REASON = "operator", "drawn by lot"
BRAKED_SECONDS = 3.0
"""Longer than the last commands take to arrive (tests/policy_audit/wire.py)."""

FINAL = {"COMPLETED", "ABORTED"}
REFUSALS = (Conflict, Forbidden, NotFound, InvalidInput)
"""Answers to what an operator asked for too early or too late, such as a freeze that is over."""


class Operators:
    """Those of one campaign under a policy document."""

    def __init__(self, database: str, tenant: str, campaign: int, document: Json, dice: random.Random) -> None:
        self._database, self._tenant, self._campaign = database, tenant, campaign
        self._document, self._dice = document, dice
        self._settings = Settings()
        self._keeps_halt = False
        self.done: list[str] = []

    async def act(self, act: Act, *, loses: bool) -> None:
        """Do one thing. A brake is released after a while."""
        key = self._tenant, self._campaign
        match act:
            case Act.HALT:
                await self._halt()
                await asyncio.sleep(BRAKED_SECONDS)
                await self._lift()
            case Act.FREEZE:
                name, now = f"freeze-{len(self.done)}", datetime.now(UTC)
                times = now, now + timedelta(seconds=BRAKED_SECONDS)
                await self._try(
                    lambda pool: brakes.add_freeze(pool, self._tenant, name, *times, actor=ACTOR, reason=REASON)
                )
                await asyncio.sleep(BRAKED_SECONDS)
            case Act.PROMOTE:
                await self._promote()
            case Act.RELEASE:
                await self._release()
            case Act.EDIT:
                await self._edit(edited(self._dice, self._document, datetime.now(UTC), loses=loses))
            case Act.RETRY:
                await self._try(lambda pool: retry_failed(pool, *key, actor=ACTOR))
            case Act.PAUSE_AND_START:
                await self._try(lambda pool: pause_campaign(pool, *key, actor=ACTOR))
                await self._try(lambda pool: start_campaign(pool, *key, actor=ACTOR))
            case Act.WAIT:
                await asyncio.sleep(BRAKED_SECONDS / 2)
            case _ if act in EDITS:
                await self._edit(changed(self._dice, act, self._document, datetime.now(UTC)))
        self.done.append(act.value)

    async def cancel(self, *, halted: bool) -> None:
        """Cancel the campaign. ``halted``: under a halt of its tenant that nobody lifts."""
        self._keeps_halt = halted
        if halted:
            await self._halt()
        await self._try(lambda pool: cancel_campaign(pool, self._tenant, self._campaign, actor=ACTOR, reason=REASON))

    async def let_it_end(self) -> None:
        """Open the windows, then remove whatever keeps the campaign from its end, until it has ended.

        A campaign that was cancelled under a halt must end under it.
        """
        await self._lift()
        await self._edit(without_windows(self._document))
        while (status := await self._status()) not in FINAL:
            if status == "PAUSED":
                await self._try(lambda pool: start_campaign(pool, self._tenant, self._campaign, actor=ACTOR))
            await self._release()
            if await self._stuck():
                await self._promote()
            await asyncio.sleep(0.3)

    async def _edit(self, document: Json) -> None:
        edit = Edit(json.dumps(document).encode(), Format.JSON, REASON)
        if await self._try(
            lambda pool: edit_policy(pool, self._settings, self._tenant, self._campaign, edit, actor=ACTOR)
        ):
            self._document = document

    async def _promote(self) -> None:
        names = [each["name"] for each in self._document.get("waves", ())]
        present = await self._query("SELECT wave FROM ota_campaigns WHERE id = $1")
        if present and present[0] < len(names) - 1:
            name, key = names[present[0]], (self._tenant, self._campaign)
            await self._try(
                lambda pool: promote_wave(pool, self._settings, *key, name, actor="approver", role=Role.APPROVER)
            )

    async def _release(self) -> None:
        for number in await self._query(
            "SELECT number FROM ota_campaign_segments WHERE campaign_id = $1 AND quarantined_at IS NOT NULL"
        ):
            await self._try(self._releasing(number))

    def _releasing(self, segment: int) -> Callable[[Pool], Awaitable[object]]:
        return lambda pool: release_segment(pool, self._settings, self._tenant, self._campaign, segment, actor=ACTOR)

    async def _halt(self) -> None:
        await self._try(lambda pool: brakes.halt(pool, self._tenant, actor=ACTOR, reason=REASON))

    async def _lift(self) -> None:
        if self._keeps_halt:
            return
        await self._try(lambda pool: brakes.lift(pool, self._tenant, actor=ACTOR))

    async def _stuck(self) -> bool:
        """Whether the present wave's gate waits for a person."""
        return bool(
            await self._query(
                "SELECT w.number FROM ota_campaign_waves w JOIN ota_campaigns c ON c.id = w.campaign_id"
                " WHERE c.id = $1 AND w.number = c.wave AND w.state IN ('failed', 'awaiting_approval')"
            )
        )

    async def _status(self) -> str:
        found = await self._query("SELECT status FROM ota_campaigns WHERE id = $1")
        return str(found[0]) if found else ""

    async def _query(self, sql: str) -> list[int]:
        try:
            async with connect(self._database) as host:
                return [row[0] for row in await host.fetch(sql, self._campaign)]
        except CONNECTION_TROUBLE:
            return []

    async def _try(self, what: Callable[[Pool], Awaitable[object]]) -> bool:
        """Ask until the database is available. Returns whether it was done."""
        while True:
            try:
                async with create_pool(self._database, size=1) as pool:
                    await what(pool)
                    return True
            except REFUSALS:
                return False
            except (*CONNECTION_TROUBLE, DatabaseUnavailable):
                await asyncio.sleep(0.1)


@asynccontextmanager
async def letting_end(operators: Sequence[Operators]) -> AsyncIterator[None]:
    """Let the campaigns end during the block."""
    tasks = [asyncio.create_task(each.let_it_end()) for each in operators]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [each for each in results if isinstance(each, Exception)], results

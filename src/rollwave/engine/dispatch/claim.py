"""Claims devices of a campaign: a short transaction under the campaign's lock."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from math import inf
from typing import TypeAlias

from rollwave.domain.campaign import CampaignRef
from rollwave.domain.execution import Cell
from rollwave.domain.policy import gates
from rollwave.domain.policy.admission import Admission, admit
from rollwave.domain.policy.budgets import Choice
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.facts import Facts
from rollwave.domain.policy.gates import Verdict
from rollwave.domain.policy.rules import Policy
from rollwave.engine import budgets, guardrails, stop
from rollwave.engine.dispatch.session import Batch
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.locked_campaign import CampaignUnderPolicy, command_of, lock_campaign
from rollwave.engine.queue_facts import read_head, read_queue
from rollwave.engine.timing import SOON_SECONDS
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import cells, counters, executions
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Claim, ClaimQueue, Times

_log = get_logger("dispatcher")

LISTENER_START_SECONDS = 3.0
"""Seconds without a listener after which the log says that sending waits for one."""

Count: TypeAlias = Callable[[CampaignRef], Awaitable[int]]
"""Counts a campaign's devices from its rows for the first time. Returns their number; 0: they cannot be counted yet."""


class Claims:
    """Claims one campaign's devices, as far as its pace, waves and caps allow now."""

    def __init__(self, pool: Pool, settings: Settings, count: Count, *, steps: int) -> None:
        self._pool = pool
        self._settings = settings
        self._steps = steps
        self._count = count
        self._unheard_since: float | None = None
        self._told = False

    async def claim(self, ref: CampaignRef) -> Batch:
        """Claim a batch, to be sent before its lease ends. If nothing may be sent, it is empty and has ``retry_in``."""
        devices = None
        while (batch := await self._claim(ref, devices)) is None:
            devices = await self._count(ref)
        return batch

    async def _claim(self, ref: CampaignRef, devices: int | None) -> Batch | None:
        """Claim in one transaction. None: the campaign's devices must be counted first."""
        lease_ends = time.monotonic() + self._settings.lease
        stopped = None
        batch = Batch()
        async with tenant_transaction(self._pool, ref.tenant_id, queues=True) as connection:
            locked = await lock_campaign(connection, ref, self._settings, devices=devices)
            campaign = locked.row
            command = command_of(locked)
            facts = locked.facts(self._settings, heard=False, steps=self._steps)
            facts = replace(facts, unreadable=command.unreadable)
            if gates.status(facts).open and gates.targeting(facts).open:
                facts = await self._ask(connection, locked, facts)
            admission = admit(locked.policy, facts)
            if command.unreadable is not None and facts.in_own_database and facts.targeted is None:
                counters = stop.counters_of(campaign)
                stopped = await stop.hold(connection, campaign.tenant_id, counters, command.unreadable)
            elif gates.status(facts).open and facts.targeted is None and not facts.counted:
                return None if devices is None else Batch(retry_in=SOON_SECONDS)  # another worker has locked it
            else:
                claim, again = await self._take(connection, locked, admission, command.body)
                await guardrails.drawn(connection, campaign, claim.dispatched)
                retry_in = 0.0 if claim.any or again else await self._retry_in(connection, campaign, admission)
                times = _times(locked.policy, campaign)
                batch = Batch(
                    *(claim.commands, command.body.encode(), times, lease_ends, claim.skipped),
                    retry_in=retry_in,
                    segments=claim.segments,
                    revision=campaign.policy_revision,
                )
                await reach(Failpoint.CLAIM_WRITTEN)
        if stopped:
            stopped.announce()
        if batch.commands:
            await reach(Failpoint.CLAIMED)
        return batch

    async def _ask(self, connection: Connection, locked: CampaignUnderPolicy, facts: Facts) -> Facts:
        """Note whether listeners are subscribed, and read the queue, if the row allows sending."""
        policy, campaign = locked.policy, locked.row
        heard = campaign.heard(self._settings.listener_slots)
        self._note(gates.listener(replace(facts, heard=heard), documents=policy.document is not None))
        if heard and policy.document is not None and facts.unreadable is None:
            if policy.document.budgets:
                await budgets.return_owed(connection, campaign)
            queue = await read_head(connection, locked, policy.document, devices=self._settings.claim_batch)
            queue = queue or await read_queue(connection, locked, policy.document)
            return replace(facts, heard=True, queue=queue)
        if not heard or policy.max_in_flight is None:
            return replace(facts, heard=heard)
        in_flight = await counters.in_flight(connection, campaign, up_to=policy.max_in_flight)
        return replace(facts, heard=True, in_flight=in_flight)

    def _note(self, listener: Verdict) -> None:
        """Log once that sending waits for a listener, if that takes longer than a start."""
        now = time.monotonic()
        if listener.open:
            self._unheard_since, self._told = None, False
        elif self._unheard_since is None:
            self._unheard_since = now
        elif not self._told and now - self._unheard_since > LISTENER_START_SECONDS:
            self._told = True
            _log.warning("ota_sending_waits", reason=listener.text)

    async def _retry_in(self, connection: Connection, campaign: Campaign, admission: Admission) -> float:
        """Seconds until the next claim, after one that could take nothing."""
        soon = SOON_SECONDS if admission.look_again_in is None else admission.look_again_in
        if not admission.tokens:
            return soon
        due_in = await counters.next_due(connection, campaign)
        if admission.look_again_in is None or (due_in is not None and due_in <= 0):
            # A place in flight, a gate or an overdue device may come first. The next step of a document's pace must not
            # be missed meanwhile: its share would be lost.
            return min(SOON_SECONDS, soon or SOON_SECONDS)
        of_queue = inf if admission.queue is None else admission.look_again_in
        return of_queue if due_in is None else min(of_queue, due_in)

    async def _take(
        self, connection: Connection, locked: CampaignUnderPolicy, admission: Admission, body: str
    ) -> tuple[Claim, bool]:
        """Claim what admission allows. Also returns whether the next claim may find more, if this one took nothing."""
        campaign, document = locked.row, locked.policy.document
        if not admission.tokens:
            return Claim((), 0), False
        fresh = min(admission.fresh, self._settings.claim_batch)
        queue = await self._queue(connection, campaign, admission, fresh)
        choice, again = None, False
        if queue is not None and queue.rooms and document is not None and document.budgets:
            choice, again = await self._choose(connection, campaign, document, admission, fresh)
            queue = queue._replace(rooms=budgets.rooms_of(choice), only=budgets.ids_of(choice))
        claim = await executions.claim(
            connection,
            campaign,
            tokens=min(admission.tokens, self._settings.claim_batch),
            fresh=fresh,
            queue=queue,
            lease=self._settings.lease,
            device_timeout=locked.policy.device_timeout,
            opens_interval=admission.opens_interval,
            command=body,
        )
        if choice is not None:
            await budgets.sent(connection, campaign, choice, claim.dispatched)
        return claim, again

    async def _choose(
        self,
        connection: Connection,
        campaign: Campaign,
        document: PolicyDocument,
        admission: Admission,
        fresh: int,
    ) -> tuple[Choice, bool]:
        """Choose ``fresh`` devices by the policy's budgets."""
        look = self._settings.claim_batch

        async def rooms() -> Mapping[Cell, int]:
            return await self._rooms(connection, campaign, admission, look)

        return await budgets.choose(connection, campaign, document, rooms, devices=fresh, look=look)

    async def _queue(
        self, connection: Connection, campaign: Campaign, admission: Admission, fresh: int
    ) -> ClaimQueue | None:
        """The cells to take ``fresh`` devices from, under a policy document."""
        queue = admission.queue
        if queue is None:
            return None if campaign.policy_revision is None else ClaimQueue({}, zones=())
        # More than the claim takes: the rows of a cell may be locked, or fewer than other SQL has left in its count.
        rooms = await self._rooms(connection, campaign, admission, self._settings.claim_batch if fresh else 0)
        found = ClaimQueue(rooms, zones=queue.open_zones)
        if (step := queue.step) is None:
            return found
        return found._replace(advance=step.advance, age=step.age, carried=step.carried, recent=step.recent)

    async def _rooms(
        self, connection: Connection, campaign: Campaign, admission: Admission, devices: int
    ) -> Mapping[Cell, int]:
        queue = admission.queue
        if not devices or queue is None:
            return {}
        if queue.rooms is not None and not queue.document.budgets:
            return queue.rooms
        zones = queue.open_zones
        return await cells.next_rooms(connection, campaign, up_to_wave=campaign.wave, zones=zones, devices=devices)


def _times(policy: Policy, campaign: Campaign) -> Times:
    return Times(policy.answer_timeout, policy.progress_timeout, policy.device_timeout, campaign.activity.suspended_for)

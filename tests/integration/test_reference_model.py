"""The engine against a reference model, with any order of claims, reports, silences, stops and a host's own SQL."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.engine import operations
from rollwave.engine.dispatch.claim import Claims
from rollwave.engine.dispatch.delivery import Delivery
from rollwave.engine.dispatch.session import Answers, CommandSession
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.retry import retry_failed
from rollwave.engine.stop import skip_rest
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.errors import Conflict
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.settings import Settings
from rollwave.store import campaigns, listeners
from rollwave.store.database import Pool, create_pool, system_transaction
from rollwave.store.executions import Claimed, Times
from tests.engine import TENANT, Connection, connect, insert_campaign, make_claims
from tests.model import MOVING, OVER, Device, Failure, Model, Policy, named
from tests.support import eventually

T = TypeVar("T")

STEP = 10_000.0
"""Seconds in one step of the model's time.

Every duration ends well inside a step. So neither the time that a test takes nor the jitter of retry delays matters.
"""

SETTINGS = Settings(
    OTA_TICK_INTERVAL=0.9 * STEP,
    ROLLWAVE_LEASE=3000,
    OTA_PROGRESS_TIMEOUT=2.5 * STEP,
    ROLLWAVE_DEVICE_TIMEOUT=9.5 * STEP,
    ROLLWAVE_RECONCILE_INTERVAL=1e-6,
)
OWN: dict[str, Any] = {"answer_timeout": 1.5 * STEP, "retry_delay": 0.5 * STEP, "retry_delay_max": 0.5 * STEP}

UNTOUCHED: dict[str, Any] = {"downloading": 0, "installing": 0, "skipped": 0}

COUNTED_IN_THE_ROW = ("PENDING", "DOWNLOADING", "INSTALLING", "SKIPPED")
"""Counters that the model does not keep, beside ``succeeded`` and ``failed``."""

NOT_A_MESSAGE: Any = None
"""Reports made by the test are never acknowledged."""


@dataclass
class World:
    """A real database and the real engine, driven step by step."""

    runner: asyncio.Runner
    pool: Pool
    host: Connection
    claims: Claims
    delivery: Delivery
    upkeep: Upkeep
    counters: Counters

    def run(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return self.runner.run(wait())


@pytest.fixture
def world(database: str) -> Iterator[World]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def build() -> World:
            pool = await stack.enter_async_context(create_pool(database, size=3))
            host = await stack.enter_async_context(connect(database))
            await _subscribe_listener(pool, stack)
            session = CommandSession(
                Broker.from_url("mqtt://localhost:1")
            )  # The session is never opened: rules play the broker's answers.
            claims, delivery = make_claims(pool, SETTINGS), Delivery(pool, session, SETTINGS)
            return World(runner, pool, host, claims, delivery, Upkeep(pool, SETTINGS), Counters(pool, SETTINGS))

        try:
            yield runner.run(build())
        finally:
            runner.run(stack.aclose())


async def _subscribe_listener(pool: Pool, stack: AsyncExitStack) -> None:
    """Hold the listener's slot as a worker does. Rules change the rest of its row."""
    lock = await stack.enter_async_context(listeners.acquire_slot(pool, 0, idle_seconds=86_400))
    assert lock is not None
    await lock.announce()
    listening = asyncio.create_task(lock.listen("", lambda: None))

    await eventually(lambda: _subscribed(pool), what="the slot has a listener")
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def _subscribed(pool: Pool) -> bool:
    async with system_transaction(pool) as connection:
        return await listeners.listening(connection, 1) is not None


policies = st.builds(
    Policy,
    rate=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0]),
    min_completed=st.integers(1, 3),
    max_in_flight=st.sampled_from([None, None, 2]),
    canary_percent=st.sampled_from([None, None, 30.0]),
    max_attempts=st.integers(1, 3),
    retry_on=st.sampled_from(
        [
            ("no_answer", "no_progress"),
            (),
            ("no_answer", "no_progress", "reported", "rejected"),
            ("reported",),
            ("rejected", "no_progress"),
        ]
    ).map(frozenset),
)
words = st.sampled_from(["DOWNLOADING", "INSTALLING", "SUCCESS", "SUCCESS", "FAILED"])
numbers = st.integers(0, 20)


class Campaign(RuleBasedStateMachine):
    """One campaign with a few devices, in the engine and in the model."""

    world: World
    model: Model
    campaign: int

    def __init__(self) -> None:
        super().__init__()
        self.in_hand: list[tuple[Claimed, ...]] = []
        self.known: dict[str, tuple[str, int, Any]] = {}
        self.extra_attempts: set[str] = set()
        self.uncounted: Counter[str] = Counter()

    @initialize(
        policy=policies,
        count=st.integers(1, 5),
        unsendable=st.sampled_from([(), (), (1,), (0, 2)]),
        status=st.sampled_from(["CREATED", "RUNNING", "RUNNING", "RUNNING"]),
        ticks=st.integers(0, 3),
        counted=st.booleans(),
    )
    def written_by_a_host(
        self, policy: Policy, count: int, unsendable: tuple[int, ...], status: str, ticks: int, counted: bool
    ) -> None:
        """It has run for some ticks. Otherwise hypothesis may leave out dispatching in a run."""
        planned = policy.canary_percent is None
        self.model = Model(policy, named(count, unsendable), status=status, counted=counted, planned=planned)
        self.campaign = self.world.run(
            insert_campaign(
                self.world.host,
                [each.name for each in self.model.devices],
                status=status,
                rollout_rate=policy.rate,
                abort_threshold=policy.threshold,
                abort_min_completed=policy.min_completed,
                max_in_flight=policy.max_in_flight,
                rollout_strategy="linear" if policy.canary_percent is None else "canary",
                canary_percent=policy.canary_percent,
                max_attempts=policy.max_attempts,
                retry_on=sorted(policy.retry_on),
                **(OWN | UNTOUCHED | {"pending": count} if counted else OWN),
            )
        )
        self.listen(on=True)
        for _ in range(ticks if status == "RUNNING" else 0):
            self.dispatch(overtaken_by=None)
            self.time_passes(1)

    @property
    def ref(self) -> CampaignRef:
        [ref] = [each for each in self.world.run(campaigns.due(self.world.pool)) if each.campaign_id == self.campaign]
        return ref

    def host(self, sql: str, *values: object) -> None:
        self.world.run(self.world.host.execute(sql, *values))

    def device(self, number: int) -> str:
        """A device in progress, if there is one. ``number`` 20 chooses from all devices."""
        devices = [each for each in self.model.devices if each.open and number < 20] or self.model.devices
        return devices[number % len(devices)].name

    # Rules: an operator.

    @rule(action=st.sampled_from([*["start"] * 6, *["pause"] * 3, "abort", "cancel"]))
    def ask(self, action: str) -> None:
        asked: dict[str, Callable[..., Awaitable[Any]]] = {
            "start": operations.start_campaign,
            "pause": operations.pause_campaign,
            "abort": operations.abort_campaign,
            "cancel": operations.cancel_campaign,
        }
        try:
            self.world.run(asked[action](self.world.pool, TENANT, self.campaign, actor="test"))
            listened = True
        except Conflict:
            listened = False
        assert listened == self.model.ask(action)
        if action == "pause" and listened:
            self.claim()

    # Rules: a worker's claims, and the broker's answers, in any order or never.

    @precondition(lambda self: self.model.status == "RUNNING")
    @rule(overtaken_by=st.none() | words)
    def dispatch(self, overtaken_by: str | None) -> None:
        """The usual case: everything is sent. Devices may report before the broker acknowledges."""
        before = len(self.in_hand)
        self.claim()
        if len(self.in_hand) == before:
            return
        if overtaken_by:
            reports = [(each.device_id, overtaken_by) for each in self.in_hand[-1]]
            self.take_in(*((device, word, None, None) for device, word in reports))
            self.model.report_together(reports)
        self.broker_answers(before, taken=9, refused=False)

    @precondition(lambda self: self.model.status in ("RUNNING", "PAUSED"))
    @rule()
    def claim(self) -> None:
        ref = CampaignRef(TenantId(TENANT), CampaignId(self.campaign), self.ref.status)
        batch = self.world.run(self.world.claims.claim(ref))
        self.model.claim([each.device_id for each in batch.commands])
        assert all(each.attempt == self.model[each.device_id].attempt for each in batch.commands)
        if batch.commands:
            self.in_hand.append(tuple(batch.commands))

    @precondition(lambda self: self.in_hand)
    @rule(number=numbers, taken=st.sampled_from([9, 9, 9, 0, 1]), refused=st.booleans())
    def broker_answers(self, number: int, taken: int, refused: bool) -> None:
        claimed = self.in_hand.pop(number % len(self.in_hand))
        sent, rest = list(claimed[:taken]), list(claimed[taken:])
        answers = Answers(taken=sent, refused=rest if refused else [], unanswered=[] if refused else rest)
        suspended_for = self.model.suspended_for * STEP
        times = Times(OWN["answer_timeout"], SETTINGS.progress_timeout, SETTINGS.device_timeout, suspended_for)
        ref = CampaignRef(TenantId(TENANT), CampaignId(self.campaign), CampaignStatus.RUNNING)
        self.world.run(self.world.delivery.record_answers(ref, times, [answers]))
        for each in sent:
            self.model.acknowledged(each.device_id, each.attempt)
        for each in rest:
            self.model.not_taken(each.device_id, each.attempt)

    @precondition(lambda self: self.in_hand)
    @rule()
    def worker_dies(self) -> None:
        self.in_hand.pop()

    # Rules: devices.

    @rule(
        number=numbers,
        word=words,
        progress=st.none() | st.integers(0, 100),
        attempt=st.sampled_from([None, None, 0, 1]),
    )
    def report(self, number: int, word: str, progress: int | None, attempt: int | None) -> None:
        """``attempt``: None if not echoed, otherwise its distance from the current attempt."""
        device = self.device(number)
        echoed = None if attempt is None else max(1, self.model[device].attempt - attempt)
        self.take_in((device, word, progress, echoed))
        self.model.report(device, word, progress, echoed)

    @precondition(lambda self: self.on_their_way())
    @rule(number=numbers, progress=st.integers(0, 100), steps=st.integers(0, 2))
    def says_the_same_a_while_later(self, number: int, progress: int, steps: int) -> None:
        devices = self.on_their_way()
        device = devices[number % len(devices)]
        self.time_passes(steps)
        self.take_in((device.name, device.status, progress, None))
        self.model.report(device.name, device.status, progress)

    def on_their_way(self) -> list[Device]:
        return [each for each in self.model.devices if each.status in MOVING]

    @precondition(lambda self: any(each.open for each in self.model.devices))
    @rule(word=words)
    def everybody_reports(self, word: str) -> None:
        on_their_way = [each.name for each in self.model.devices if each.open]
        self.take_in(*((device, word, None, None) for device in on_their_way))
        self.model.report_together([(device, word) for device in on_their_way])
        self.conduct_if_due()

    @rule(said=st.lists(st.tuples(numbers, words), min_size=2, max_size=6))
    def reports_in_one_batch(self, said: list[tuple[int, str]]) -> None:
        """Equal to applying them one after the other."""
        reports = [(self.device(number), word) for number, word in said]
        self.take_in(*((device, word, None, None) for device, word in reports))
        self.model.report_together(reports)

    def take_in(self, *reports: tuple[str, str, int | None, int | None]) -> None:
        self.world.run(
            # A new ingest, without memory of earlier reports: its clock would differ from the model's.
            Ingest(self.world.pool, SETTINGS).take_in(
                [
                    Incoming(
                        status_topic(TENANT, device),
                        encode_report(self.campaign, word, progress, attempt=attempt),
                        retain=False,
                        attempt=None,
                        handle=NOT_A_MESSAGE,
                    )
                    for device, word, progress, attempt in reports
                ]
            )
        )

    # Rules: time.

    @rule(steps=st.sampled_from([1, 1, 2, 3, 5]))
    def time_passes(self, steps: int) -> None:
        self.model.pass_time(steps)
        back = f"make_interval(secs => {steps * STEP})"
        self.host(
            f"UPDATE ota_device_status SET due_at = due_at - {back}, started_at = started_at - {back}"
            " WHERE campaign_id = $1",
            self.campaign,
        )
        self.host(f"UPDATE ota_campaign_history SET at = at - {back} WHERE campaign_id = $1", self.campaign)
        # While the campaign is active, a worker looks at it every few seconds and records this.
        self.host(
            f"UPDATE ota_campaigns SET pace_opened_at = pace_opened_at - {back}, started_at = started_at - {back},"
            f" active_since = active_since - {back},"
            f" active_at = CASE WHEN active_since IS NULL THEN active_at - {back} ELSE now() - interval '10 s' END"
            " WHERE id = $1",
            self.campaign,
        )

    @rule(on=st.sampled_from([True, True, False]))
    def listen(self, on: bool) -> None:
        self.model.listening = on
        self.host(
            "UPDATE rollwave_listener_slots SET listening_since = now() - interval '1 year',"
            " subscribed_at = now() - interval '1 year', alive_at = now() + $1::interval",
            timedelta(seconds=19) if on else timedelta(days=-1),
        )

    @precondition(lambda self: self.model.status in ("RUNNING", "PAUSED") or self.unsettled())
    @rule()
    def conduct(self) -> None:
        ref = self.ref
        if self.model.status == "ABORTED":
            self.world.run(skip_rest(self.world.pool, ref))
        self.world.run(self.world.upkeep.look_after(ref))
        self.model.conduct()

    def conduct_if_due(self) -> None:
        if self.model.status in ("RUNNING", "PAUSED"):
            self.conduct()

    @precondition(lambda self: self.model.status == "RUNNING")
    @rule(overtaken_by=st.none() | words, steps=st.integers(1, 4))
    def a_tick(self, overtaken_by: str | None, steps: int) -> None:
        self.time_passes(steps)
        self.conduct()
        if self.model.status == "RUNNING":
            self.dispatch(overtaken_by)

    @precondition(lambda self: self.on_their_way())
    @rule(steps=st.integers(2, 4), abort=st.booleans())
    def silence(self, steps: int, abort: bool) -> None:
        """No device reports for long. The campaign may be stopped meanwhile."""
        if abort:
            self.ask("abort")
        self.listen(on=True)
        self.time_passes(steps)
        if self.model.status in ("RUNNING", "PAUSED") or self.unsettled():
            self.conduct()

    def unsettled(self) -> bool:
        return self.model.status == "ABORTED" and not self.model.wound_down

    @precondition(lambda self: self.model.status in ("RUNNING", "PAUSED") or self.unsettled())
    @rule()
    def reconcile(self) -> None:
        self.world.run(self.world.counters.reconcile(self.ref))
        self.model.reconcile_and_judge()
        self.uncounted.clear()

    @precondition(lambda self: self.model.status in ("RUNNING", "PAUSED") and "FAILED" in self.states())
    @rule()
    def operator_retries(self) -> None:
        self.world.run(retry_failed(self.world.pool, TENANT, self.campaign, actor="test", per_batch=2))
        before = len(self.model.retried)
        self.model.retry()
        for name in self.model.retried[before:]:
            self.known.pop(name, None)
            self.extra_attempts.add(name)

    def states(self) -> set[str]:
        return {each.status for each in self.model.devices}

    # Rules: a host's own SQL.

    @precondition(lambda self: self.model.status in ("RUNNING", "PAUSED") and any(self.over()))
    @rule(number=numbers)
    def host_gives_another_chance(self, number: int) -> None:
        over = self.over()
        self.host_sets(over[number % len(over)], "PENDING")

    def over(self) -> list[str]:
        return [each.name for each in self.model.devices if each.status in OVER]

    @precondition(lambda self: self.model.status in ("RUNNING", "PAUSED"))
    @rule(number=numbers, status=st.sampled_from(["PENDING", "SUCCESS", "FAILED"]))
    def host_sets_a_device(self, number: int, status: str) -> None:
        self.host_sets(self.device(number), status)

    def host_sets(self, name: str, status: str) -> None:
        device = self.model[name]
        self.host(
            "UPDATE ota_device_status SET status = $3, error_message = NULL,"
            " completed_at = CASE WHEN $3 <> 'PENDING' THEN now() END WHERE campaign_id = $1 AND device_id = $2",
            self.campaign,
            name,
            status,
        )
        self.moved_uncounted(device.status, status)
        device.status, device.finished = status, None
        self.known.pop(device.name, None)
        self.extra_attempts.add(device.name)

    def moved_uncounted(self, was: str, became: str) -> None:
        """SQL of others changes no counter."""
        self.uncounted.update({was: -1})
        self.uncounted.update({became: 1})

    @precondition(lambda self: self.model.status in ("CREATED", "RUNNING", "PAUSED"))
    @rule(number=numbers, status=st.sampled_from(["DOWNLOADING", "INSTALLING"]))
    def an_earlier_worker_had_sent_it(self, number: int, status: str) -> None:
        device = self.model[self.device(number)]
        if device.waiting and device.sendable:
            self.host(
                "UPDATE ota_device_status SET status = $3 WHERE campaign_id = $1 AND device_id = $2",
                self.campaign,
                device.name,
                status,
            )
            self.moved_uncounted(device.status, status)
            device.status, device.acknowledged, device.heard = status, True, True

    @precondition(lambda self: self.model.status in ("RUNNING", "PAUSED") and self.ended())
    @rule(number=numbers, status=st.sampled_from(["DOWNLOADING", "INSTALLING"]))
    def an_earlier_worker_writes_over_it(self, number: int, status: str) -> None:
        device = self.ended()[number % len(self.ended())]
        self.host(
            "UPDATE ota_device_status SET status = $3, due_at = NULL WHERE campaign_id = $1 AND device_id = $2",
            self.campaign,
            device.name,
            status,
        )
        self.moved_uncounted(device.status, status)
        device.finished, device.status, device.due = "FAILED" if device.failed else "SUCCESS", status, None
        self.known.pop(device.name, None)
        self.extra_attempts.add(device.name)

    def ended(self) -> list[Device]:
        return [each for each in self.model.devices if each.status in ("SUCCESS", "FAILED")]

    @precondition(lambda self: self.model.status in ("RUNNING", "PAUSED"))
    @rule(status=st.sampled_from([*["RUNNING"] * 6, *["PAUSED"] * 3, "ABORTED"]))
    def host_moves_the_campaign(self, status: str) -> None:
        self.host("UPDATE ota_campaigns SET status = $2 WHERE id = $1", self.campaign, status)
        self.model.status = status

    # Checks after each rule.

    @invariant()
    def database_and_model_agree(self) -> None:
        if hasattr(self, "campaign"):
            self.world.run(self.compare())

    async def compare(self) -> None:
        fetch = self.world.host.fetch
        [row] = await fetch(
            "SELECT *, (completed_at IS NOT NULL)::int AS done FROM ota_campaigns WHERE id = $1", self.campaign
        )
        model = self.model
        found = row["status"], row["succeeded"], row["failed"], row["sent"], row["wave"], row["settled_at"] is not None
        assert found == (model.status, model.succeeded, model.failed, model.sent, model.wave, model.wound_down)
        assert row["pace_used"] == model.used <= model.policy.rate
        rows = await fetch(
            "SELECT *, ceil(extract(epoch FROM due_at - clock_timestamp()) / $2::float8)::int AS due_in"
            " FROM ota_device_status WHERE campaign_id = $1 ORDER BY id",
            self.campaign,
            STEP,
        )
        for device, each in zip(model.devices, rows, strict=True):
            due = None if each["due_in"] is None else max(each["due_in"] + model.now, 0)
            self.check_device(each)
            now = each["status"], each["attempt"], each["progress_pct"], due
            assert now == (device.status, device.attempt, device.progress, device.due), device
        self.check_counters(row, Counter(each["status"] for each in rows))
        history = await fetch("SELECT * FROM ota_campaign_history WHERE campaign_id = $1 ORDER BY id", self.campaign)
        self.check_history(history)

    def check_counters(self, campaign: Any, rows: Counter[str]) -> None:
        """Counters are correct, except for changes by other SQL since the last repair."""
        counters = {status: campaign[status.lower()] for status in COUNTED_IN_THE_ROW}
        if counters == {status: rows[status] for status in counters}:
            self.uncounted.clear()
        elif None in counters.values():
            assert set(counters.values()) == {None}
        else:
            assert counters == {status: rows[status] - self.uncounted[status] for status in counters}

    def check_device(self, row: Any) -> None:
        name, status, attempt, done = row["device_id"], row["status"], row["attempt"], row["completed_at"]
        was, was_attempt, was_done = self.known.get(name, ("PENDING", 0, None))
        self.known[name] = status, attempt, done
        assert was not in OVER or (status, done) == (was, was_done), f"{name} was {was} and done, now {status}"
        assert (done is not None) == (status in OVER or self.model[name].finished is not None)
        assert attempt >= was_attempt
        assert attempt <= self.model.policy.max_attempts or name in self.extra_attempts
        assert status != "FAILED" or name in self.extra_attempts or row["failed_reason"]

    def check_history(self, history: list[Any]) -> None:
        # A retry of several batches has one event for each.
        events = [each["event"] for each in history if each["device_id"] is None]
        assert [each for each, _ in groupby(events)] == [each for each, _ in groupby(self.model.events)]
        retried = [each["device_id"] for each in history if each["event"] == "retried"]
        assert sorted(retried) == sorted(self.model.retried)
        failures = [
            (each["device_id"], each["actor"], each["event"], json.loads(each["detail"]))
            for each in history
            if each["device_id"] is not None and each["event"] != "retried"
        ]
        found = [
            Failure(device, detail["attempt"], detail["cause"], actor, detail["final"], event)
            for device, actor, event, detail in failures
        ]
        assert sorted(map(str, found)) == sorted(map(str, self.model.failures))


def test_the_engine_and_the_reference_model_agree(world: World) -> None:
    """MODEL_EXAMPLES=1000 for a long run. MODEL_SHRINK=1 searches, for minutes, for the shortest failing run."""

    class Here(Campaign):
        pass

    Here.world = world
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=int(os.environ.get("MODEL_EXAMPLES", "150")),
            stateful_step_count=40,
            deadline=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink] if "MODEL_SHRINK" in os.environ else [Phase.generate],
            derandomize=os.environ.get("CI") == "true",
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def run(world: World) -> Campaign:
    """A campaign whose rules the test calls itself."""

    class Here(Campaign):
        pass

    Here.world = world
    return Here()


def test_repaired_counters_abort_a_campaign_and_the_next_look_winds_it_down(run: Campaign) -> None:
    """A run that hypothesis has found: the abort skips a device after the rows were compared."""
    policy = Policy(1, 0.5, 1, None, 30.0, 1, frozenset())
    run.written_by_a_host(policy=policy, count=3, unsendable=(1,), status="RUNNING", ticks=1, counted=False)
    for number in (0, 17):
        run.host_sets_a_device(number=number, status="FAILED")
    run.conduct()
    run.database_and_model_agree()
    assert (run.model.status, run.model.wound_down) == ("ABORTED", False)
    run.conduct()
    run.database_and_model_agree()
    assert run.model.wound_down


def test_an_aborted_campaign_does_not_wait_for_devices_that_reported_a_failure(run: Campaign) -> None:
    """Another attempt was to follow. No later report of theirs counts, so they end also while deadlines stand."""
    policy = Policy(2, 1.0, 1, None, None, 2, frozenset({"rejected"}))
    run.written_by_a_host(policy=policy, count=2, unsendable=(), status="RUNNING", ticks=1, counted=True)
    run.report(number=0, word="FAILED", progress=None, attempt=None)
    run.ask("abort")
    run.listen(on=False)
    run.time_passes(1)
    run.conduct()
    run.database_and_model_agree()
    assert [each.status for each in run.model.devices] == ["FAILED", "DOWNLOADING"]


def test_the_time_of_a_device_that_reports_while_its_campaign_is_suspended(run: Campaign) -> None:
    """A run that hypothesis has found: an earlier worker had sent to it, and no look has recorded that it may go on."""
    policy = Policy(1, 1.0, 1, None, None, 1, frozenset())
    run.written_by_a_host(policy=policy, count=2, unsendable=(), status="RUNNING", ticks=1, counted=True)
    run.time_passes(2)
    run.an_earlier_worker_had_sent_it(number=21, status="INSTALLING")
    for steps in (0, 6):
        run.says_the_same_a_while_later(number=1, progress=10 + steps, steps=steps)
        run.database_and_model_agree()
    run.conduct()
    run.database_and_model_agree()


@pytest.mark.parametrize("listening", [True, False])
def test_a_device_that_reported_a_failure_is_not_overdue_because_its_campaign_was_paused(
    run: Campaign, *, listening: bool
) -> None:
    """A run that hypothesis has found: the look after the abort ended the pause, and gave the device up in one."""
    policy = Policy(1, 1.0, 1, None, None, 3, frozenset({"reported"}))
    run.written_by_a_host(policy=policy, count=2, unsendable=(), status="RUNNING", ticks=1, counted=True)
    run.ask("pause")
    for word in ("INSTALLING", "FAILED"):
        run.everybody_reports(word=word)
    run.conduct()
    run.time_passes(10)
    run.listen(on=listening)
    run.ask("abort")
    run.conduct()
    run.database_and_model_agree()
    [_, given_up] = run.model.failures
    assert (given_up.cause, given_up.event) == ("reported", "given_up")

"""A short run of the fuzzer (`make fuzz` for a long one), and inputs that it would hardly find."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.ids import is_valid_id
from rollwave.mqtt.topics import parse_status_topic, status_topic
from tests import fuzz


@pytest.fixture(autouse=True, scope="module")
def no_garbage_collection() -> Iterator[None]:
    """The test measures the time per payload, so no garbage of other tests is collected meanwhile."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("seed", range(4))
def test_mutated_reports_never_raise_and_accepted_ones_can_be_stored(seed: int) -> None:
    rng = random.Random(seed)
    outcomes = {fuzz.one(rng)[1] for _ in range(2500)}
    assert outcomes == {"report", "rejected", "undecodable", "empty", "status topic", "no status topic"}


@pytest.mark.parametrize("payload", fuzz.PAYLOADS + fuzz.LARGE, ids=lambda payload: repr(payload[:24]))
def test_every_class_of_bad_payload_is_handled(payload: bytes) -> None:
    fuzz.checked(payload, is_topic=False)


@given(st.text())
def test_random_topics_never_raise(topic: str) -> None:
    fuzz.check_topic(topic)


ids = st.text(min_size=1, max_size=128).filter(is_valid_id)


@given(ids, ids)
def test_a_status_topic_is_parsed_to_the_ids_it_was_made_from(tenant: str, device: str) -> None:
    assert parse_status_topic(status_topic(tenant, device)) == (tenant, device)


@given(st.binary(max_size=200), st.integers())
def test_random_and_mutated_payloads_never_raise(data: bytes, seed: int) -> None:
    fuzz.check_payload(data)
    fuzz.check_payload(fuzz.mutated(random.Random(seed), data))

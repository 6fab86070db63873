"""A device's state survives a restart."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.device.decide import Job, State
from rollwave.device.memory import Memory
from rollwave.domain.execution import ExecutionStatus
from rollwave.errors import ConfigurationError
from rollwave.mqtt.payload import Command

texts = st.text(max_size=20)
jobs = st.builds(
    Job,
    st.builds(Command, st.integers(1, 2**63 - 1), texts, texts, texts, texts, st.none() | st.integers(1, 2**63 - 1)),
    st.none() | st.integers(1, 99),
    st.sampled_from(ExecutionStatus),
    st.none() | texts,
    st.booleans(),
)


@given(st.builds(State, st.none() | jobs, st.none() | jobs, st.lists(jobs, max_size=3).map(tuple)))
def test_saved_state_is_loaded_unchanged(state: State) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Memory(Path(folder)).save(state)
        assert Memory(Path(folder)).load() == state


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "5",
        "null",
        "[" * 100_000,
        '{"running": 5, "waiting": null, "finished": []}',
        '{"running": [], "finished": 5}',
    ],
)
def test_an_unreadable_state_file_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert Memory(tmp_path).load() == State()


def test_a_state_directory_that_cannot_be_created_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError) as caught:
        Memory(tmp_path / "file" / "state")
    assert "--state" in caught.value.hint

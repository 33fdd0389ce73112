"""What one process alone can show; several are in tests/processes_test.py."""

import json
import math

import numpy as np
import pytest

from rsclip_jax.data.sampling import shares
from rsclip_jax.train import processes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h:1", 0, -1), "give --coordinator, --processes and --process together"),
        (("", 2, -1), "--processes=2 needs --coordinator=HOST:PORT"),
        (("", 2, 1), "give --coordinator, --processes and --process together"),
        (("host", 2, 1), "--coordinator=host is not HOST:PORT"),
        (("h:1", 2, 2), "--process=2 must be below --processes=2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        processes.initialize(*arguments)


@pytest.mark.parametrize(
    "name", ["SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"]
)
@pytest.mark.parametrize("arguments", [(), ("", 1)])
def test_one_of_several_that_cannot_join_is_refused(monkeypatch, name, arguments):
    monkeypatch.setenv(name, "2")
    monkeypatch.setattr(processes, "_connect", refuse)
    with pytest.raises(ValueError, match=f"{name} = 2, but this process runs alone"):
        processes.initialize(*arguments)


def refuse(**job):
    """What JAX says where it detects no cluster."""
    raise ValueError("coordinator_address should be defined.")


@pytest.mark.parametrize("tasks", ["", "1"])
def test_a_process_alone_does_not_connect(monkeypatch, tasks):
    monkeypatch.setenv("SLURM_NTASKS", tasks)
    called = []
    monkeypatch.setattr(processes, "_connect", lambda **job: called.append(job))
    processes.initialize("", 1)
    assert called == []
    processes.initialize()
    assert called == ([] if tasks else [{}])  # with one task there is nobody to join


def test_values_of_the_first_process_come_as_json_returns_them():
    assert processes.from_first((1, 2.5, None, "x")) == [1, 2.5, None, "x"]
    assert math.isnan(processes.from_first(float("nan")))
    assert processes.first_decides(lambda: {"a": (1,)}) == {"a": [1]}
    with pytest.raises(TypeError):
        processes.from_first(np.float32(1))


def test_errors_alone_are_raised_as_they_are():
    with pytest.raises(OSError, match="full"), processes.together():
        raise OSError("full")
    with pytest.raises(KeyError):
        processes.first_decides(lambda: {}["x"])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("items", [0, 1, 5, 6, 7, 12, 13])
def test_shares_are_blocks_of_each_batch_and_hold_each_item_once(items, count):
    parts = [shares(items, 2, (index, count)) for index in range(count)]
    assert len({len(part) for part in parts}) == 1
    joined = [i for batch in zip(*parts, strict=True) for block in batch for i in block]
    assert joined == list(range(items))


def test_bytes_of_any_length_are_padded_to_a_few_sizes():
    assert processes._rounded(0) == processes._rounded(1024) == 1024
    assert processes._rounded(1025) == 2048
    for number in (0, 1, 2**30 - 1, 2**30, 5 * 2**31 + 7):
        high, low = processes._halves(number)
        assert max(high, low) < 2**31
        assert high << 30 | low == number
    assert json.loads(json.dumps(processes._halves(2**31))) == [2, 0]

"""The choice of a client axis: pure rules over measured seconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.fed.tuning import MARGIN, OVERHEAD, Candidate, best, candidates, rounds_per_dispatch


def test_on_cpu_one_device_a_core_is_the_best_guess():
    first, *others = candidates("cpu", 2, 100)
    assert first == Candidate("shard", 1, 2)
    assert {c.client_axis for c in others} == {"shard", "chunk", "turn"}
    assert all(c.client_axis != "shard" for c in candidates("cpu", 1, 100))


def test_an_accelerator_takes_many_clients_at_once():
    assert [c.chunk for c in candidates("gpu", 1, 1000)] == [128, 256, 512, 64, 32]
    assert {c.client_axis for c in candidates("tpu", 4, 1000)} == {"shard"}


@given(st.sampled_from(["cpu", "gpu", "tpu"]), st.integers(1, 16), st.integers(1, 2000))
def test_no_chunk_is_larger_than_a_devices_share(platform, devices, cohort):
    found = candidates(platform, devices, cohort)
    assert found
    assert len(set(found)) == len(found)
    assert all(1 <= c.chunk <= -(-cohort // c.devices) for c in found)
    assert all(c.devices == (devices if c.client_axis == "shard" else 1) for c in found)


def test_noise_does_not_flip_the_best_guess():
    assert best([1.0, 1 - MARGIN / 2, 1.2]) == 0
    assert best([1.0, 0.95, 0.8]) == 2
    assert best([None, 1.0, 0.95]) == 1
    with pytest.raises(ValueError, match="no candidate ran"):
        best([None, None])


@given(st.floats(1e-6, 1e3), st.lists(st.integers(1, 60), min_size=1, max_size=3))
def test_blocks_are_of_one_length_and_cost_little(seconds, every):
    rounds = rounds_per_dispatch(seconds, every)
    assert all(e % rounds == 0 for e in every)
    if rounds < min(every) and rounds > 1:
        smaller = [n for n in range(1, rounds) if all(e % n == 0 for e in every)]
        assert all(2e-3 / (n * seconds) > OVERHEAD for n in smaller)


def test_long_rounds_are_dispatched_one_by_one():
    assert rounds_per_dispatch(2.0, (10, 10)) == 1
    assert rounds_per_dispatch(0.05, (10, 20)) == 5
    assert rounds_per_dispatch(1e-4, (10, 15)) == 5

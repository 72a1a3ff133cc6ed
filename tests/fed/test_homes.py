"""Where clients live: every row once, devices alike."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from qoejax.fed.homes import settle

COUNTS = st.lists(st.integers(1, 60), min_size=4, max_size=40)


@hypothesis.given(COUNTS, st.integers(1, 4))
def test_every_client_finds_its_rows_at_home(counts, devices):
    count = np.array(counts, np.int32)
    offset = np.cumsum(count) - count
    homes = settle(offset, count, devices)
    for client, (device, first) in enumerate(zip(homes.device, homes.offset, strict=True)):
        own = homes.rows[device, first : first + count[client]]
        np.testing.assert_array_equal(own, offset[client] + np.arange(count[client]))
    held = np.bincount(homes.device, count, devices)
    assert held.sum() == count.sum()
    assert homes.rows.shape == (devices, held.max())
    # Graham's bound: the last client of the fullest device went to the emptiest one.
    assert held.max() <= count.sum() / devices + (1 - 1 / devices) * count.max() + 1e-9
    assert homes.most == np.bincount(homes.device).max()


def test_many_clients_of_skewed_sizes_fill_devices_evenly():
    count = np.random.default_rng(0).pareto(1.2, 1000).astype(np.int32) + 1
    homes = settle(np.cumsum(count) - count, count, 8)
    assert homes.rows.size <= 1.05 * max(count.sum(), 8 * count.max())


def test_fewer_clients_than_devices_are_named():
    with pytest.raises(ValueError, match="3 devices for 2 clients"):
        settle(np.array([0, 4]), np.array([4, 4]), 3)

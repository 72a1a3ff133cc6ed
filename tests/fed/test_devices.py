"""Simulated time and bytes, by hand."""

import numpy as np
import pytest

from qoejax.fed import devices
from qoejax.types import Cohort

MIX = (devices.Kind("gateway", "wifi", 0.75), devices.Kind("microcontroller", "lorawan", 0.25))
LOAD = devices.Load(flops=1e8, up=1000, down=2000)


def test_shares_are_met_and_shuffled():
    kinds = devices.assign(MIX, 101, seed=0)
    assert np.bincount(kinds).tolist() in ([75, 26], [76, 25])
    assert 0 < np.flatnonzero(kinds == 1)[0] < 60
    assert (devices.assign(MIX, 101, seed=1) != kinds).any()
    for mix in devices.MIXES.values():
        assert sum(kind.share for kind in mix) == pytest.approx(1)
        assert all(k.device in devices.DEVICES and k.link in devices.LINKS for k in mix)


def test_every_figure_says_where_it_is_from():
    for entry in (*devices.DEVICES.values(), *devices.LINKS.values()):
        assert entry.source.startswith(("published: ", "assumed: "))


def test_seconds_by_hand():
    wifi = 2 * 0.01 + 8 * 2000 / 20e6 + 8 * 1000 / 20e6
    lora = 2 * 2.0 + 8 * 3000 / (5470 * 0.01)
    steps = np.array([3, 3])
    took = devices.client_seconds(MIX, np.array([0, 1]), steps, LOAD)
    np.testing.assert_allclose(took, [wifi + 3 * 1e8 / 2e9, lora + 3 * 1e8 / 5e7])


def test_a_deadline_admits_the_steps_that_fit_and_no_more():
    kinds = np.array([0, 1, 0, 1])
    for steps in (1, 7):
        exact = float(devices.client_seconds(MIX, kinds, np.full(4, steps), LOAD)[0])
        assert devices.step_limit(MIX, kinds, LOAD, exact)[0] == steps
        assert devices.step_limit(MIX, kinds, LOAD, exact - 1e-4)[0] == steps - 1
    np.testing.assert_array_equal(devices.step_limit(MIX, kinds, LOAD, 1.0)[[1, 3]], 0)


def cohort(ids, steps, weight):
    ids, steps = np.array(ids), np.array(steps)
    return Cohort(ids, ids, ids, steps, np.array(weight, np.float32))


def test_a_round_waits_for_the_slowest_that_finishes():
    kinds = np.array([0, 1, 0, 0])
    asked = cohort([0, 2, 3, -1], [2, 9, 0, 0], [1, 1, 0, 0])  # 3 stops half-way, -1 is padding
    out = devices.cost(MIX, kinds, asked, LOAD)
    slowest = devices.client_seconds(MIX, np.array([0]), np.array([9]), LOAD)
    assert out["seconds"] == pytest.approx(float(slowest[0]))
    assert out["clients"] == {"gateway/wifi": 2, "microcontroller/lorawan": 0}
    assert out["bytes_up"] == {"gateway/wifi": 2000, "microcontroller/lorawan": 0}
    assert out["bytes_down"] == {"gateway/wifi": 6000, "microcontroller/lorawan": 0}
    assert devices.cost(MIX, kinds, asked, LOAD, deadline=5.0)["seconds"] == 5.0
    everyone = cohort([0, 2], [2, 9], [1, 1])
    assert devices.cost(MIX, kinds, everyone, LOAD, deadline=5.0)["seconds"] < 5.0


def test_nobody_takes_no_time():
    out = devices.cost(MIX, np.zeros(4, int), cohort([-1], [0], [0]), LOAD)
    assert out["seconds"] == 0.0
    assert sum(out["bytes_down"].values()) == 0

"""The model's counts are those of the protocol as it runs; speeds are literals, not tested."""

import numpy as np
import pytest

from experiments.bench import costs, secagg, wire
from qoejax.fed import devices
from qoejax.wire import client, cost, keys, sign, suites
from qoejax.wire.secagg import bound, local


def test_bytes_of_an_update_are_those_on_the_wire():
    at = wire._scene(wire._Way(suites.DEFAULT, "openssl", False), 4000)
    told = at.round.announced
    sealed = client.seal(at.spec, at.leaves, at.one, told, n_samples=1, provider=at.provider)
    work = cost.update(4000, 0)
    assert work.up == len(sealed.envelope)
    assert work.down == len(at.data)
    assert cost.update(4000, 77).down == work.down + 77
    long = cost.in_session(4000, 0, rounds=10**9)
    assert long.up == pytest.approx(4000 + 234)
    assert cost.in_session(4000, 0, rounds=1).sign == 1


@pytest.fixture
def counted(monkeypatch):
    """How often members sign and verify, in this process."""
    counts = {"sign": 0, "verify": 0}
    real_sign, real = keys.Identity.sign, sign.verifier("openssl")

    def signing(self, *arguments):
        counts["sign"] += 1
        return real_sign(self, *arguments)

    def verifying(*arguments):
        counts["verify"] += 1
        return real(*arguments)

    monkeypatch.setattr(keys.Identity, "sign", signing)
    monkeypatch.setattr(sign, "verifier", lambda *_: verifying)
    return counts


@pytest.mark.parametrize("degree", [4, 6])
def test_operations_and_bytes_of_masked_rounds_are_those_of_the_protocol(degree, counted):
    n, words = 9, 30
    server, members = secagg.parties(n, "openssl")
    choice = bound.Choice(degree, degree, n, 0.0, 0.0)
    inputs = dict.fromkeys(members, np.zeros(words, np.uint32))
    epoch = None
    for number, fresh in ((0, True), (1, False)):
        facts = secagg.facts(server, number, 0, choice, words, True)
        counted.update(sign=0, verify=0)
        out = local.run(server, facts, members, inputs, epoch=epoch, verifier="openssl")
        epoch = out.epoch
        work = cost.masked(words, 0, members=n, degree=degree, fresh=fresh)
        assert set(out.up.values()) == {work.up}
        received = np.array(list(out.down.values())) + cost.ANNOUNCE_SIZE
        np.testing.assert_allclose(received, work.down, rtol=0.01)
        # The server signs OPEN and SURVIVORS, and verifies every signature that members send.
        assert counted["sign"] == n * work.sign + 2
        # Announcements are read elsewhere.
        assert counted["verify"] == n * (work.verify - 1) + n * work.sign


def test_seconds_add_up_operations():
    speed = cost.Speed(1, 2, 4, 8, 16, 32, 64, 128, "test")
    assert cost.seconds(cost.Work(), speed) == 0
    assert cost.seconds(cost.Work(up=5, down=6), speed) == 0
    for at in range(8):
        work = cost.Work(**{cost.Work._fields[at]: 3})
        assert cost.seconds(work, speed) == 3 * 2**at
    assert cost.Work._fields[:8] == cost.Speed._fields[:8]


def test_every_device_and_link_has_a_column_and_says_where_it_is_from():
    assert set(cost.SPEEDS) == set(devices.DEVICES)
    page = costs.tables()
    for name, speed in cost.SPEEDS.items():
        assert f"{name}, s" in page
        assert speed.source.split(":")[0] in ("published", "measured", "assumed")
    for link in devices.LINKS:
        assert f"{link}, s" in page
    each = [cost.seconds(cost.update(10**5, 0), speed) for speed in cost.SPEEDS.values()]
    assert each == sorted(each, reverse=True)


def test_links_are_those_of_the_simulated_devices():
    kind = devices.Kind("gateway", "nb_iot", 1.0)
    load = devices.Load(0.0, 300, 700)
    expected = devices.overhead([kind], load)[0]
    assert costs.link_seconds(300, 700, devices.LINKS["nb_iot"]) == pytest.approx(expected)

"""Contract of every attack, each in closed form, and what a round makes of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax.fed import attacks, round
from qoejax.fed.aggregate import ROBUST
from qoejax.fed.attacks import ATTACKS
from qoejax.types import Examples
from tests.reference import robust_numpy

from . import tiny

RNG = np.random.default_rng(5)
K = 8
U = RNG.normal(size=(K, 6)).astype(np.float32) + 1
MALICIOUS = np.isin(np.arange(K), [2, 5])
HONEST = ~MALICIOUS & (np.arange(K) != 7)  # client 7 is absent
CHANGES = [n for n in ATTACKS if n not in ("none", "label_flip", "backdoor")]
POISONS = ("sybils", "label_flip", "backdoor", "model_replacement")
START = {"w": jnp.zeros(6)}
NOW = {"w": jnp.full(6, 0.25)}


@functools.cache
def jitted(name, strength=None):
    attack = ATTACKS[name]() if strength is None else ATTACKS[name](strength)
    return attack, jax.jit(attack.update)


def hit(name, strength=None, u=U, malicious=MALICIOUS, honest=HONEST, seed=11):
    attack, update = jitted(name, strength)
    out, _ = update(
        {"w": jnp.asarray(u)}, attack.init(START), malicious=jnp.asarray(malicious),
        honest=jnp.asarray(honest), params=NOW, key=tiny.key(seed),
    )  # fmt: skip
    return np.asarray(out["w"])


@pytest.mark.parametrize("name", ATTACKS)
def test_contract_others_stay_as_they_were(name):
    out = hit(name)
    np.testing.assert_array_equal(out[~MALICIOUS], U[~MALICIOUS])
    assert np.all(np.isfinite(out))
    assert np.any(out[MALICIOUS] != U[MALICIOUS], axis=1).all() == (name in CHANGES)


@pytest.mark.parametrize("name", ATTACKS)
def test_contract_nobody_malicious_nothing_changes(name):
    np.testing.assert_array_equal(hit(name, malicious=np.zeros(K, bool)), U)


@pytest.mark.parametrize("name", ATTACKS)
def test_contract_absent_clients_tell_an_attacker_nothing(name):
    wild = np.where(np.arange(K)[:, None] == 7, np.float32(1e6), U)
    np.testing.assert_allclose(hit(name, u=wild)[MALICIOUS], hit(name)[MALICIOUS], rtol=1e-5)


@pytest.mark.parametrize("name", ATTACKS)
def test_contract_order_is_invisible(name):
    order = RNG.permutation(K)
    out = hit(name, u=U[order], malicious=MALICIOUS[order], honest=HONEST[order])
    if name == "gaussian":  # its noise belongs to the place
        return
    np.testing.assert_allclose(out, hit(name)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ATTACKS)
def test_contract_rows_of_others_stay_as_they_were(name):
    rows = examples()
    before = jax.tree.map(np.copy, rows)
    mine = np.arange(40) % 4 == 0
    out = ATTACKS[name]().poison(rows, mine, 5)
    jax.tree.map(np.testing.assert_array_equal, rows, before)  # nothing in place
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[~mine], b[~mine]), out, rows)
    changed = (out.label != rows.label) | (out.x != rows.x).any((1, 2))
    assert changed[mine].any() == (name in POISONS)
    assert out.x.dtype == np.float32
    assert out.label.dtype == np.int32


def examples():
    return Examples(
        x=RNG.normal(size=(40, 2, 6)).astype(np.float32),
        label=RNG.integers(0, 5, 40).astype(np.int32),
        mos=np.zeros((40, 1), np.float32),
        mos_mask=np.zeros((40, 1), bool),
        weight=np.ones(40, np.float32),
    )


# Closed forms.


def test_sign_flip_scaling_and_ipm():
    np.testing.assert_allclose(hit("sign_flip", 2.0)[MALICIOUS], -2 * U[MALICIOUS], rtol=1e-6)
    np.testing.assert_allclose(hit("scaling", 7.0)[MALICIOUS], 7 * U[MALICIOUS], rtol=1e-6)
    mean = U[HONEST].mean(0)
    np.testing.assert_allclose(hit("ipm", 0.3)[MALICIOUS], np.tile(-0.3 * mean, (2, 1)), rtol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_alie(strength):
    honest, malicious = int(HONEST.sum()), int(MALICIOUS.sum())
    z = strength or robust_numpy.alie(honest, malicious)
    expected = U[HONEST].mean(0) - z * U[HONEST].std(0)
    np.testing.assert_allclose(hit("alie", strength)[2], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(50, 12), (25, 5), (30, 9)])
def test_the_z_of_alie_is_the_papers(n, m):
    """Deviations and mean of the honest are 1 and 0, so that the attack is minus z."""
    u = np.zeros((n, 2), np.float32)
    u[m:] = np.where(np.arange(n - m) % 2, 1, -1)[:, None]
    if (n - m) % 2:
        u[-1] = 0
    out = hit("alie", 0.0, u=u, malicious=np.arange(n) < m, honest=np.arange(n) >= m)
    expected = u[m:].mean(0) - robust_numpy.alie(n - m, m) * u[m:].std(0)
    np.testing.assert_allclose(out[0], expected, rtol=1e-4)


def test_min_max_goes_as_far_as_the_papers_search():
    expected = robust_numpy.min_max(U[HONEST].astype(np.float64))
    out = hit("min_max")[2]
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-4)
    far = np.linalg.norm(out - U[HONEST], axis=1).max()
    reach = max(np.linalg.norm(a - b) for a in U[HONEST] for b in U[HONEST])
    assert far == pytest.approx(reach, rel=1e-4)  # not one step further would pass


def test_gaussian_noise_has_its_mean_and_deviation_and_is_fresh_each_round():
    u = jnp.zeros((3, 20_000))
    attack = ATTACKS["gaussian"](0.5)
    mask = {"malicious": jnp.array([True, True, False]), "honest": jnp.array([False, False, True])}
    outs = [
        np.asarray(attack.update({"w": u}, (), **mask, params=None, key=tiny.key(s))[0]["w"])
        for s in (1, 2)
    ]
    for noise in (outs[0][0], outs[0][1], outs[1][0]):
        assert abs(noise.mean()) < 5 * 0.5 / np.sqrt(20_000)
        assert noise.std() == pytest.approx(0.5, rel=0.02)
    assert abs(np.corrcoef(outs[0][0], outs[0][1])[0, 1]) < 0.05
    assert abs(np.corrcoef(outs[0][0], outs[1][0])[0, 1]) < 0.05


def test_free_rider_sends_back_the_last_change():
    np.testing.assert_allclose(hit("free_rider")[MALICIOUS], np.full((2, 6), 0.25))
    noisy = hit("free_rider", 0.1)[MALICIOUS]
    assert 0 < np.abs(noisy - 0.25).max() < 1
    _, update = jitted("free_rider")
    mask = {"malicious": jnp.asarray(MALICIOUS), "honest": jnp.asarray(HONEST)}
    _, state = update({"w": jnp.asarray(U)}, START, **mask, params=NOW, key=tiny.key())
    tiny.equal(state, NOW)


def test_sybils_are_one():
    out = hit("sybils", 2.0)[MALICIOUS]
    np.testing.assert_allclose(out, np.tile(2 * U[MALICIOUS].mean(0), (2, 1)), rtol=1e-6)


def test_label_flip_and_backdoor():
    rows, mine = examples(), np.arange(40) < 20
    flipped = ATTACKS["label_flip"]().poison(rows, mine, 5)
    np.testing.assert_array_equal(flipped.label[:20], 4 - rows.label[:20])
    half = ATTACKS["label_flip"](0.5).poison(rows, mine, 5)
    assert np.isin(half.label[:20], [*range(5)]).all()
    planted = ATTACKS["backdoor"](0.5).poison(rows, mine, 5)
    hit_ = (planted.x != rows.x).any((1, 2))
    assert hit_.sum() == 10
    assert np.all(planted.label[hit_] == 0)
    np.testing.assert_array_equal(planted.x[hit_], attacks.stamp(rows.x)[hit_])
    np.testing.assert_array_equal(planted.label[~hit_], rows.label[~hit_])
    np.testing.assert_array_equal(attacks.stamp(rows.x)[..., : -attacks.TRIGGER], rows.x[..., :3])


@pytest.mark.parametrize("name", ["label_flip", "backdoor"])
@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_of_rows_that_is_none_is_refused(name, share):
    with pytest.raises(ValueError, match="share of rows"):
        ATTACKS[name](share)


def test_who_is_malicious_depends_on_the_seed_only():
    a = attacks.choose(100, 0.3, 1)
    assert a.sum() == 30
    np.testing.assert_array_equal(a, attacks.choose(100, 0.3, 1))
    assert np.any(a != attacks.choose(100, 0.3, 2))
    assert attacks.choose(7, 0.0, 1).sum() == 0
    with pytest.raises(ValueError, match="fraction is 1"):
        attacks.choose(7, 1.0, 1)


# Rounds.


@functools.cache
def jitted_round(attack, aggregator, byzantine=1):
    algorithm = tiny.algorithm(
        aggregator=aggregator, byzantine=byzantine, loss=tiny.Loss(), lr=0.2, optimizer="sgd"
    )
    if attack:
        one = ATTACKS[attack](*(() if attack != "sign_flip" else (3.0,)))
        who = jnp.asarray(np.arange(5) == 2)  # the client with most rows
        algorithm = algorithm._replace(adversary=attacks.Adversary(one, who))
    return algorithm, jax.jit(round.make_round(algorithm))


def error(attack, aggregator, rounds=12):
    """Distance of the trained weights to those that made the data."""
    algorithm, step = jitted_round(attack, aggregator)
    state = round.init_state(algorithm, tiny.params(), 5)
    for _ in range(rounds):
        state, metrics = step(state, tiny.examples(), tiny.cohort(), tiny.key())
    assert metrics["clients"] == 5
    return float(np.linalg.norm(state.params["w"] - np.array([1.0, 2.0, -1.0])))


@pytest.mark.slow
def test_one_flipped_client_ruins_the_mean_and_not_the_median():
    assert error(None, "weighted_mean") < 0.3
    assert error("sign_flip", "weighted_mean") > 1.5
    assert error("sign_flip", "coordinate_median") < 0.5


def test_an_attack_hits_by_identity_wherever_the_client_sits():
    algorithm, step = jitted_round("sign_flip", "weighted_mean")
    state = round.init_state(algorithm, tiny.params(), 5)
    padded = tiny.cohort((0, 1, 2, 3, 4, -1))
    a, _ = step(state, tiny.examples(), padded, tiny.key())
    b, _ = step(state, tiny.examples(), tiny.cohort((4, -1, 3, 2, 0, 1)), tiny.key())
    tiny.close(a.params, b.params)


@pytest.mark.parametrize(
    "name", ["scaffold", *(pytest.param(n, marks=pytest.mark.slow) for n in ("fedper", "fednova"))]
)
def test_a_message_is_corrupted_whatever_its_form(name):
    """Two parts, a part of the parameters, or a delta of a step: the same as a liar would send."""
    algorithm = tiny.algorithm(name, loss=tiny.Loss(), optimizer="sgd")
    who = np.arange(5) == 2
    adversary = attacks.Adversary(ATTACKS["sign_flip"](3.0), jnp.asarray(who))
    local_fn, server_fn = round.make_halves(algorithm)
    attacked_fn = round.make_halves(algorithm._replace(adversary=adversary))[1]
    state = round.init_state(algorithm, tiny.params(name), 5)
    cohort, arrived = tiny.cohort(), jnp.ones(5, bool)
    local = jax.jit(local_fn)(state, tiny.examples(), cohort, tiny.key())
    lies = jnp.where(jnp.asarray(who), -3.0, 1.0)
    lied = jax.tree.map(lambda m: m * lies.reshape(-1, *(1,) * (m.ndim - 1)), local.deltas)
    expected, _ = jax.jit(server_fn)(
        state, cohort, local._replace(deltas=lied), arrived, tiny.key()
    )
    after, _ = jax.jit(attacked_fn)(state, cohort, local, arrived, tiny.key())
    tiny.equal(after, expected)
    plain, _ = jax.jit(server_fn)(state, cohort, local, arrived, tiny.key())
    assert np.any(plain.params["w"] != after.params["w"])


def test_a_free_rider_sends_back_only_what_travels():
    algorithm = tiny.algorithm("fedper", loss=tiny.Loss(), optimizer="sgd")
    everybody = attacks.Adversary(ATTACKS["free_rider"](), jnp.ones(5, bool))
    algorithm = algorithm._replace(adversary=everybody)
    state = round.init_state(algorithm, tiny.params("fedper"), 5)
    assert state.attack_state["b"] is None
    lag = state.attack_state | {"w": state.params["w"] - 0.25}
    server = jax.jit(round.make_halves(algorithm)[1])
    local = round.Local({"w": jnp.ones((5, 3)), "b": None}, state.client_state, {"n": jnp.ones(5)})
    after, _ = server(
        state._replace(attack_state=lag), tiny.cohort(), local, jnp.ones(5, bool), tiny.key()
    )
    tiny.close(after.params["w"], state.params["w"] + 0.25)


def test_the_attacks_state_is_the_last_model():
    algorithm, step = jitted_round("free_rider", "weighted_mean")
    first = round.init_state(algorithm, tiny.params(), 5)
    tiny.equal(first.attack_state, tiny.params())
    second, _ = step(first, tiny.examples(), tiny.cohort(), tiny.key())
    tiny.equal(second.attack_state, first.params)


BROKEN = [np.nan, np.inf, 1e5, 1e25]


@pytest.mark.parametrize("name", ["weighted_mean", "mean", *ROBUST])
def test_a_broken_or_wild_client_is_dropped_and_counted_under_every_rule(name):
    algorithm = tiny.algorithm(aggregator=name)
    server = jax.jit(round.make_halves(algorithm)[1])
    state = round.init_state(algorithm, tiny.params(), 5)
    good = np.array(RNG.normal(size=(5, 3)), np.float32)
    cohort = tiny.cohort((0, 1, 2, 3, 4))
    arrived = jnp.ones(5, bool)
    keep = round.Local({"w": jnp.asarray(good)}, (), {"n": jnp.ones(5)})
    without, _ = server(state, cohort, keep, arrived.at[1].set(False), tiny.key())
    for bad in BROKEN:
        wild = good.copy()
        wild[1] = bad
        after, metrics = server(
            state, cohort, keep._replace(deltas={"w": jnp.asarray(wild)}), arrived, tiny.key()
        )
        assert (metrics["clients"], metrics["refused"], metrics["n"]) == (4, 1, 4)
        # A sum on the way learns late who is out, and rounds its coefficients otherwise.
        same = tiny.equal if algorithm.aggregator.linear is None else tiny.close
        same(after.params, without.params)


@pytest.mark.parametrize(
    ("byzantine", "moves"), [pytest.param(1, True, marks=pytest.mark.slow), (2, False)]
)
def test_a_round_with_too_few_clients_changes_nothing(byzantine, moves):
    """Four clients count: enough for one Byzantine client, too few for two."""
    algorithm = tiny.algorithm(aggregator="coordinate_median", byzantine=byzantine)
    step = jax.jit(round.make_round(algorithm))
    state = round.init_state(algorithm, tiny.params(), 5)
    after, metrics = step(state, tiny.examples(), tiny.cohort((0, 1, 2, 3, -1)), tiny.key())
    assert metrics["clients"] == 4
    assert np.any(after.params["w"] != state.params["w"]) == moves
    assert after.round == 1

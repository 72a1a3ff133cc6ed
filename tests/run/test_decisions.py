import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax import trees
from qoejax.qoe import policies
from qoejax.run import decisions, responses, study
from qoejax.simulate import acts, sources

N, F = sources.SOURCES, 7


@pytest.fixture
def small(monkeypatch):
    """Two cells at each of three qualities: intervals cost time."""
    monkeypatch.setattr(decisions, "PREVALENCES", (0.1,))
    monkeypatch.setattr(decisions, "DAMAGES", (0.5, 5.0))


def utilities(gain, spread=0.05, scenes=30):
    """Utility of every policy in every cell; joint's is above the others' by ``gain``."""
    rng = np.random.default_rng(0)
    shape = (len(decisions.BLURS), len(decisions.PREVALENCES), len(decisions.DAMAGES), scenes)
    scene = rng.normal(3.0, 1.0, scenes)
    made = {name: scene + rng.normal(0, spread, shape) for name in policies.POLICIES}
    return made | {"joint": scene + gain + rng.normal(0, spread, shape)}


@pytest.mark.usefixtures("small")
def test_a_gain_is_paired_by_scene_and_against_every_rival():
    rows = decisions.compare(utilities(0.1))
    assert len(rows) == 3 * 1 * 2
    assert all(row["above all"] and row["low"] > 0.05 for row in rows)
    # The same scenes in another order are no longer pairs: their spread hides the gain.
    mixed = utilities(0.1)
    mixed["joint"] = mixed["joint"][..., ::-1]
    assert not any(row["above all"] for row in decisions.compare(mixed))
    one = utilities(0.1)
    one["qoe_only"] = one["joint"] + 0.01
    rows = decisions.compare(one)
    assert {row["best rival"] for row in rows} == {"qoe_only"}
    assert not any(row["above all"] for row in rows)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("gain", "verdict"), [(0.1, study.HOLDS), (0.0, study.FAILS)])
def test_the_verdict_follows_from_the_figures(tmp_path, monkeypatch, gain, verdict):
    """Everything but the simulation: what is kept, averaged, compared, drawn and said."""
    made = utilities(gain)
    ran = []

    def run_blur(fits, blur, scenes):
        b = decisions.BLURS.index(blur)
        ran.append((fits, blur))
        mean = {name: u[b].mean(-1).tolist() for name, u in made.items()}
        return {
            "utility": {name: u[b].tolist() for name, u in made.items()},
            "benign_mos": mean, "alarms": mean, "attack_s": mean,
            "auc": {"joint": (0.98, 0.95, 0.9)[b]},
            "rmse": {"joint": 0.5, "separate": 0.6, "spread": 1.4},
        }  # fmt: skip

    monkeypatch.setattr(decisions, "run_blur", run_blur)
    monkeypatch.setattr(decisions, "learn", lambda seed, work: seed)
    got = decisions.study(study.Context("", tmp_path, 2, 1.0))
    assert ran == [(seed, blur) for seed in (0, 1) for blur in decisions.BLURS]
    monkeypatch.setattr(decisions, "learn", lambda seed, work: pytest.fail("was kept"))
    decisions.run_seed(study.Context("", tmp_path, 2, 1.0), 0, decisions.sizes(1.0))
    assert got.verdict == verdict
    assert "AUC of 0.950" in got.reason
    assert (tmp_path / "decisions.png").read_bytes().startswith(b"\x89PNG")
    assert got.figures == ("decisions.png",)
    assert {row["auc"] for row in got.rows} == {0.98, 0.95, 0.9}


def test_scale_shrinks_the_work_but_not_below_what_means_anything():
    assert decisions.sizes(0.5) < decisions.sizes(1.0)
    assert decisions.sizes(0.0).scenes >= 20
    assert decisions.blurs(0.0) == (decisions.JUDGED,)
    assert decisions.blurs(0.6) == (0.5, 3.0)
    assert decisions.blurs(1.0) == decisions.BLURS


@pytest.fixture(scope="module")
def described():
    """A net with both heads on one scene: features, its parameters, its response to actions."""
    rng = np.random.default_rng(1)
    net = responses.NETS["joint"]
    x = jnp.asarray(rng.normal(size=(N, F)), jnp.float32)
    use = jnp.asarray(rng.gamma(1.0, 0.1, N), jnp.float32)
    actions = jnp.asarray(rng.integers(0, 3, N), jnp.int32)
    params = jax.jit(net.init)(jax.random.key(0), x, use, actions)
    return x, use, actions, params, jax.jit(net.apply)


def test_sources_may_come_in_any_order(described):
    x, use, actions, params, apply = described
    order = np.random.default_rng(2).permutation(N)
    plain = apply(params, x, use, actions)
    moved = apply(params, x[order], use[order], actions[order])
    for a, b in zip(plain, moved, strict=True):
        np.testing.assert_allclose(np.asarray(a)[order], b, atol=1e-5)


def test_only_what_is_admitted_loads_the_link_of_the_others(described):
    x, use, _, params, apply = described
    blocked = jnp.zeros(N, jnp.int32).at[0].set(2)
    _, mos = apply(params, x, use, blocked)
    assert (np.asarray(mos)[0] == acts.BLOCKED_MOS).all()
    # What a blocked source would have sent does not matter to the others.
    _, other = apply(params, x.at[0].add(3.0), use.at[0].set(9.0), blocked)
    np.testing.assert_allclose(mos, other, atol=1e-6)
    _, allowed = apply(params, x, use.at[0].set(9.0), jnp.zeros(N, jnp.int32))
    assert np.abs(np.asarray(allowed - mos))[1:].max() > 1e-3


def test_separate_nets_have_as_many_parameters_together_as_the_joint_one():
    features = 3 * 20 + len(sources.SERVICES) + 1 + 3
    shapes = [jnp.zeros((N, features)), jnp.zeros(N), jnp.zeros(N, jnp.int32)]
    size = {
        name: trees.count(jax.eval_shape(net.init, jax.random.key(0), *shapes))
        for name, net in responses.NETS.items()
    }
    assert size["detector"] + size["responder"] == pytest.approx(size["joint"], rel=0.02)


@pytest.mark.slow
def test_the_whole_loop_runs_and_knows_its_order(monkeypatch):
    """Small, but with everything: nets learn, tuning tunes, the oracle is best."""
    monkeypatch.setattr(decisions, "PREVALENCES", (0.2,))
    monkeypatch.setattr(decisions, "DAMAGES", (2.0, 10.0))
    found = decisions.run_blur(decisions.learn(0, decisions.Sizes(400, 400, 24)), 0.5, 24)
    utility = {name: np.mean(u[0][0]) for name, u in found["utility"].items()}
    assert utility["oracle"] == max(utility.values())
    assert utility["allow"] < min(utility["ids"], utility["joint"], utility["separate_product"])
    assert found["auc"]["joint"] > 0.9
    assert found["rmse"]["joint"] < 0.7 * found["rmse"]["spread"]
    assert found["attack_s"]["oracle"][0][0] == 0

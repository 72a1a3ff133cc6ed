"""Attacks that see a planted signal, see none where there is none, and halve rows evenly."""

import numpy as np
import pytest
import scipy.stats

from qoejax.run import build, membership
from qoejax.run.errors import RunError

from .conftest import tiny_config


def test_halves_are_half_of_each_client_and_pairs_share_nothing():
    count = np.array([5, 8, 2])
    member = membership.halves(count, 6, seed=0)
    assert member.shape == (6, 15)
    for start, n in zip(np.cumsum(count) - count, count, strict=True):
        np.testing.assert_array_equal(member[:, start : start + n].sum(1), n // 2)
    for pair in range(0, 6, 2):
        assert not np.any(member[pair] & member[pair + 1])
    np.testing.assert_array_equal(member[:, 5:13].sum(0), 3)
    assert np.any(member[0] != member[2])


def test_confidence_is_the_log_odds_and_survives_certainty():
    logits = np.array([[2.0, 0.0, -1.0], [400.0, 0.0, 0.0]])
    p = np.exp(logits[0]) / np.exp(logits[0]).sum()
    out = membership.confidence(logits, np.array([1, 0]))
    assert out[0] == pytest.approx(np.log(p[1] / (1 - p[1])))
    assert out[1] == pytest.approx(400 - np.log(2))


def planted(shift, seed=0, models=8, rows=2000):
    """Rows of unequal difficulty; membership adds ``shift`` standard deviations."""
    rng = np.random.default_rng(seed)
    member = membership.halves(np.array([rows]), models, seed)
    confidence = 3 * rng.normal(size=rows) + rng.normal(size=(models, rows)) + shift * member
    return membership.Shadows(confidence, member, confidence > 0, None)


def test_lira_is_the_ratio_of_two_gaussians():
    shadows = planted(1.0, models=4, rows=6)
    ratio = membership.lira(shadows.confidence, shadows.member, 0)
    laws = []
    for chosen in (shadows.member[1:], ~shadows.member[1:]):
        means = [shadows.confidence[1:, i][chosen[:, i]].mean() for i in range(6)]
        residuals = [shadows.confidence[1:, i][chosen[:, i]] - m for i, m in enumerate(means)]
        degrees = sum(len(r) - 1 for r in residuals)
        sigma = np.sqrt(sum((r**2).sum() for r in residuals) / degrees)
        laws.append(scipy.stats.norm(means, sigma).logpdf(shadows.confidence[0]))
    np.testing.assert_allclose(ratio, laws[0] - laws[1])


def test_attacks_see_a_planted_signal_and_none_where_there_is_none():
    found = membership.judge(planted(1.0))
    assert found["lira"]["auc"] > found["threshold"]["auc"] + 0.03
    assert found["threshold"]["auc"] > 0.55
    assert found["lira"]["tpr_at_1_percent_fpr"] > 0.02
    blind = membership.judge(planted(0.0))
    for attack in ("threshold", "lira"):
        assert blind[attack]["auc"] == pytest.approx(0.5, abs=0.02)


def test_shadow_models_are_trained_on_their_half(data_dir):
    config = tiny_config(
        data_dir,
        data={"max_rows": 120},
        clients={"partition": "iid", "min_size": 1},
        client={"epochs": 20, "batch": 8, "lr": 0.05},
        fed={"rounds": 2},
    )
    data = build.data(config)
    shadows = membership.train_shadows(config, data, 4)
    assert shadows.confidence.shape == shadows.member.shape == (4, 120)
    assert shadows.epsilon is None
    found = membership.judge(shadows)
    assert found["accuracy_in"] > found["accuracy_out"]
    with pytest.raises(RunError, match="--models is 5: expected an even number"):
        membership.train_shadows(config, data, 5)

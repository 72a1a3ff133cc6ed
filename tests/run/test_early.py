"""The study of early detection: episodes, scores, the verdict, and one small run of it."""

import numpy as np
import pytest

from configs import quickstart
from qoejax.run import early, study
from qoejax.run.study import FAILS, HOLDS
from qoejax.simulate import mixes


def results(hybrid, others):
    """Delays [S, E] by detector; undetected where the delay is 40."""
    found = {early.HYBRID: np.array(hybrid), **{k: np.array(v) for k, v in others.items()}}
    return {
        name: {"delay": d, "found": d < 40, "rate": np.full(len(d), 1e-3)}
        for name, d in found.items()
    }


def test_the_verdict_follows_the_medians_and_the_paired_differences():
    rng = np.random.default_rng(0)
    slow = rng.integers(4, 9, (2, 200))
    said, reason = early.verdict(results(slow - 2, {"LSTM": slow, "CUSUM": slow + 5}))
    assert said == HOLDS
    assert "against 6 s of the best baseline (LSTM); mean difference -2.00 s" in reason
    assert early.verdict(results(slow + 1, {"LSTM": slow, "CUSUM": slow + 5}))[0] == FAILS
    # Equal medians, but clearly later on average.
    late = np.where(slow > 6, slow + 4, slow)
    assert np.median(late) == np.median(slow)
    assert early.verdict(results(late, {"LSTM": slow}))[0] == FAILS
    # Nobody detects half of the attacks: the means decide.
    blind = np.where(rng.random((2, 200)) < 0.7, 40, slow)
    assert early.verdict(results(blind, {"LSTM": blind}))[0] == HOLDS
    assert "Median delay inf s" in early.verdict(results(blind, {"LSTM": blind}))[1]


def watched(x, began, site):
    return early.Watched(np.asarray(x, np.float32), np.asarray(began), np.asarray(site))


def test_rates_are_held_against_their_own_site_and_no_window_is_judged_too_soon():
    rng = np.random.default_rng(0)
    level = np.array([10.0, 1000.0])
    x = level.repeat(3)[:, None, None] * np.exp(0.1 * rng.standard_normal((6, 60, 1)))
    history = watched(x, [-1] * 6, [3, 3, 3, 8, 8, 8])
    z = early.standardised(history)(history)
    for rows in (z[:3], z[3:]):
        assert rows.mean() == pytest.approx(0, abs=1e-5)
        assert rows.std() == pytest.approx(1, abs=1e-5)
    attacked = watched(np.concatenate([x[:1, :30], 3 * x[:1, 30:]], 1), [30], [3])
    score = early.cusum(early.standardised(history), 0.5)(attacked)
    since = early.SETTINGS.length - 1
    assert np.isneginf(score[:, :since]).all()
    assert np.isfinite(score[:, since:]).all()
    assert score[0, 33] > 10 > score[0, 29]


def test_judging_splits_benign_episodes_and_keeps_attacks_apart():
    n, steps = 200, 60
    benign = watched(np.zeros((n, steps, 1)), [-1] * n, [0] * n)
    benign.x[1::2] = 1.0  # what sets no threshold is what the rate is measured on
    attack = watched(np.zeros((3, steps, 1)), [20, 30, 40], [0] * 3)
    attack.x[0, 25:] = 1.0
    attack.x[1, :30] = 1.0
    out = early.judge(lambda w: w.x[..., 0].astype(float), benign, attack)
    assert out["rate"] == 1.0
    assert out["delay"].tolist() == [6, 30, 20]
    assert out["found"].tolist() == [True, False, False]


@pytest.mark.slow
def test_the_study_runs_and_is_resumed(tmp_path, data_dir, monkeypatch):
    config = quickstart.get_config("plain").unlock()
    config.model = {"net": "qoenet", "width": 8, "depth": 1, "heads": 2, "mlp": 16, "hidden": 16}
    config.data.name, config.clients.count = "simulated_iot/tiny", 3
    context = study.Context(str(data_dir), tmp_path, 1, 0.05, {early.DATASET: config})
    out = early.study(context)
    assert out.verdict in study.VERDICTS
    assert [row["detector"] for row in out.rows] == [*early.LEARNED, early.CUSUM]
    assert all(0 <= row["detected"] <= 1 for row in out.rows)
    assert (tmp_path / "early.png").stat().st_size > 1000

    def never(*_):
        raise AssertionError("done before")

    monkeypatch.setattr(early, "judge", never)
    assert early.study(context).reason == out.reason


@pytest.mark.slow
def test_episodes_are_as_they_were_asked_for():
    calm = early.watch(early.BENIGN, 1, benign=True)
    attacked = early.watch(early.TEST, 2, benign=False)
    assert len(calm.onset) == 20
    assert (calm.onset == -1).all()
    assert 20 < len(attacked.onset) < 40  # four of five have an attack
    first, most = 0.07 * early.SETTINGS.seconds, 0.53 * early.SETTINGS.seconds
    assert ((attacked.onset >= np.floor(first)) & (attacked.onset <= most + 2)).all()
    assert early.SETTINGS.seconds - attacked.onset.max() >= early.HORIZON - 2
    assert len(mixes.LABELS) == 9

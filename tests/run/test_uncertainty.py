import numpy as np
import pytest

from configs import base
from qoejax.objectives import conformal
from qoejax.run import plots, study, uncertainty


def drawn(rng, kept, test, shift=0.0):
    """Coverage of test rows by a threshold of kept-back ones, of one uniform score a row."""
    threshold = conformal.quantile(rng.random(kept), uncertainty.ALPHA)
    return float(np.mean(rng.random(test) + shift <= threshold))


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.0, 0.03), (0.2, 0.95, 1.0)])
def test_valid_sets_pass_and_shifted_rows_fail(shift, least, most):
    rng = np.random.default_rng(0)
    failed = []
    for _ in range(150):
        checks = [(f"set {i}", drawn(rng, 200, 300, shift), 200, 300) for i in range(4)]
        verdict, reason = uncertainty.judged(checks)
        assert verdict in (study.HOLDS, study.FAILS)
        assert ("expected" in reason) == (verdict == study.FAILS)
        failed.append(verdict == study.FAILS)
    assert least <= np.mean(failed) <= most


def test_one_bad_interval_fails_the_study_and_is_named():
    good = [("classes of toy", 0.93, 200, 300), ("mos_voice_0s of toy", 0.91, 200, 300)]
    verdict, reason = uncertainty.judged(good)
    assert verdict == study.HOLDS
    assert "2 of 2" in reason
    assert "the lowest mos_voice_0s of toy with 0.910" in reason
    verdict, reason = uncertainty.judged([*good, ("mos_video_0s of toy", 0.6, 200, 300)])
    assert verdict == study.FAILS
    assert "2 of 3" in reason
    assert "mos_video_0s of toy holds 0.600, expected 0.8" in reason


def figures(worst):
    """As of one fit: three clients, one service."""

    def part(low):
        clients = [{"coverage": c, "rows": 20} for c in (low, 0.9, 1.0)] + [None]
        return {"coverage": 0.92, "rows": 60, "size": 1.4, "width": 1.1, "clients": clients}

    curve = [[0.5, 0.4, 10], [0.9, 0.8, 50]]
    return {
        "macro_f1": 0.7, "temperature": 1.2, "ece": {"before": 0.1, "after": 0.05},
        "rows": [20, 60], "sets": part(worst), "intervals": {"mos_voice_0s": part(0.95)},
        "curves": [curve, curve],
    }  # fmt: skip


def test_the_table_counts_clients_that_are_served_poorly(tmp_path):
    unseen = {"scan": {"hybrid/entropy": 0.7}, "web": {"hybrid/entropy": 0.9}}
    rows = uncertainty._rows("toy", [figures(0.5), figures(0.86)], unseen)
    by = {row["figure"]: row for row in rows}
    assert len({tuple(row) for row in rows}) == 1  # all rows have the same columns
    assert by["coverage, classes"]["clients below 0.85"] == "17%"  # one of six
    assert by["coverage, classes"]["worst client"] == 0.5
    assert by["coverage, mos_voice_0s"]["clients below 0.85"] == "0%"
    area = by["AUROC of 2 unseen attacks, hybrid/entropy"]
    assert (area["mean"], area["lowest"], area["highest"]) == (pytest.approx(0.8), 0.7, 0.9)
    assert "17% of the clients of toy are below 0.85, the worst has 0.500" in (
        uncertainty._clients(rows)
    )
    setting = uncertainty.DATASETS["simulated_iot/small"]
    checks = uncertainty._checks("toy", setting, figures(0.5))
    assert checks == [("classes of toy", 0.92, 6, 6), ("mos_voice_0s of toy", 0.92, 6, 6)]
    plots.save(plots.coverage(figures(0.5), 0.9), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_study_runs_and_resumes(data_dir, tmp_path, monkeypatch):
    tiny = uncertainty.Setting(2, 32, 10, {"features": 8}, {"partition": "natural", "count": 3})
    monkeypatch.setattr(uncertainty, "DATASETS", {"simulated_iot/tiny": tiny})
    config = base.get_config()
    config.data.name = "simulated_iot/tiny"
    configs = {"simulated_iot/tiny": config}
    context = study.Context(str(data_dir), tmp_path, 1, 0.1, configs)
    outcome = uncertainty.study(context)
    assert outcome.verdict in study.VERDICTS
    assert (tmp_path / outcome.figures[0]).exists()
    kept = sorted(p.name for p in (tmp_path / "work").iterdir())
    assert len(kept) == 2  # one fit, one attack left out

    def never(*args):
        raise AssertionError("done before")

    monkeypatch.setattr(uncertainty.build, "data", never)
    assert uncertainty.study(context) == outcome

import numpy as np
import pytest
import scipy.stats

from qoejax.run import study
from qoejax.run.errors import RunError


def test_work_is_done_once(tmp_path):
    calls = []
    work = {"contender": "linear", "seed": 3}
    first = study.once(tmp_path, work, lambda: calls.append(1) or {"f1": np.float64(0.5)})
    again = study.once(tmp_path, work, lambda: calls.append(1) or {"f1": 0.0})
    assert first == again == {"f1": 0.5}
    other = study.once(tmp_path, {**work, "seed": 4}, lambda: calls.append(1) or {"f1": 0.75})
    assert (other, len(calls)) == ({"f1": 0.75}, 2)


def test_a_failed_unit_leaves_nothing(tmp_path):
    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        study.once(tmp_path, {"seed": 0}, fails)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", '{"work": {"seed": 0}}'])
def test_a_broken_kept_result_is_named(tmp_path, text):
    study.once(tmp_path, {"seed": 0}, lambda: 1)
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    with pytest.raises(RunError, match=path.name):
        study.once(tmp_path, {"seed": 0}, lambda: 1)


def test_another_works_result_is_refused(tmp_path):
    study.once(tmp_path, {"seed": 0}, lambda: 1)
    (path,) = tmp_path.iterdir()
    path.write_text('{"work": {"seed": 1}, "result": 2}')
    with pytest.raises(RunError, match="other work"):
        study.once(tmp_path, {"seed": 0}, lambda: 1)


@pytest.mark.parametrize(("find", "n"), [(study.over_seeds, 5), (study.over_blocks, 40)])
def test_intervals_cover_as_often_as_they_say(find, n):
    rng = np.random.default_rng(0)
    found = [find(rng.normal(1.0, 2.0, n)) for _ in range(100)]
    covered = sum(low <= 1.0 <= high for _, low, high in found)
    assert scipy.stats.binom.cdf(covered, 100, 0.95) > 1e-3
    assert all(low < mean < high for mean, low, high in found)


def test_equal_differences_have_no_width():
    assert study.over_blocks([0.5] * 30) == (0.5, 0.5, 0.5)
    assert study.over_seeds([0.5, 0.5]) == (0.5, 0.5, 0.5)

import concurrent.futures
import logging

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


def unit(context, seed):
    """A unit of work that refuses one seed."""
    assert context.pool is None
    if seed == 9:
        raise RunError("seed 9")
    return study.once(context.folder, {"seed": seed}, lambda: 2 * seed)


def test_work_side_by_side_is_found_afterwards(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        context = study.Context("", tmp_path, 2, 1.0, {}, pool)
        study.side_by_side(context, unit, [(0,), (1,), (2,)])
        kept = sorted(tmp_path.iterdir())
        assert kept == sorted(study.kept(tmp_path, {"seed": seed}) for seed in range(3))
        with pytest.raises(RunError, match="seed 9"):
            study.side_by_side(context, unit, [(9,)])
    assert unit(context._replace(pool=None), 2) == 4
    assert sorted(tmp_path.iterdir()) == kept


def test_without_processes_nothing_is_done_ahead(tmp_path):
    study.side_by_side(study.Context("", tmp_path, 2, 1.0), unit, [(0,)])
    assert not list(tmp_path.iterdir())


def test_processes_that_die_leave_the_work_to_the_caller(tmp_path, caplog):
    class Dead(concurrent.futures.Executor):
        def submit(self, *args):
            raise concurrent.futures.BrokenExecutor("killed")

    context = study.Context("", tmp_path, 2, 1.0, {}, Dead())
    with caplog.at_level(logging.WARNING, "qoejax"):
        study.side_by_side(context, unit, [(0,)])
    assert "killed" in caplog.text


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

"""Figures as functions of weights: against the plain ones, and their intervals."""

import types

import numpy as np
import pytest

from qoejax.data.table import MOS, QOME, Service, Spec
from qoejax.objectives import metrics
from qoejax.qoe import scales
from qoejax.run.baselines import Said
from qoejax.run.studies import fits, pairs
from qoejax.types import Examples

SERVICES = tuple(
    Service(name, h, scale) for name, scale in (("voice", MOS), ("things", QOME)) for h in (0, 1, 3)
)
SPEC = Spec("made/up", (), ("benign", "flood", "scan"), SERVICES, {}, "benign", 1)
ROWS, EACH = 120, 4


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, ROWS).astype(np.int32)  # no scan among the rows
    mos = rng.uniform(1, 5, (ROWS, len(SERVICES))).astype(np.float32)
    mask = rng.random(mos.shape) < 0.8
    mask[:, [0, 3]] = True
    test = Examples(np.zeros((ROWS, 1, 1), np.float32), label, mos, mask, np.ones(ROWS, np.float32))
    data = types.SimpleNamespace(test=test, spec=SPEC)
    return fits.Task("made/up", None, data, np.arange(ROWS) // EACH)


@pytest.fixture(scope="module")
def said(task):
    def make(noise, seed):
        rng = np.random.default_rng(seed)
        logit = np.eye(3)[task.data.test.label] + noise * rng.normal(size=(ROWS, 3))
        probability = np.round(np.exp(logit) / np.exp(logit).sum(1, keepdims=True), 2)
        return Said(
            probability, task.data.test.mos + noise * rng.normal(size=task.data.test.mos.shape)
        )

    return make


def test_services_are_those_ahead():
    assert fits.services(SPEC) == [2, 5]
    assert fits.services(SPEC, 1) == [1, 2, 4, 5]
    assert fits.services(SPEC, scale=MOS) == [2]


def test_on_all_rows_they_are_the_plain_figures(task, said):
    one, rows = said(1.0, 0), task.data.test
    found = metrics.classification(one.probability, rows.label, benign=0)
    assert pairs.value(pairs.macro_f1, task, one) == pytest.approx(found["macro_f1"])
    assert pairs.value(pairs.false_positives, task, one) == found["fpr_at_95_recall"]
    attack = rows.label != 0
    recall, fpr = metrics.rates_at_recall(one.probability[:, 1:].sum(1), attack)
    expected = metrics.restated_precision(recall, fpr, attack.mean())
    assert pairs.value(pairs.precision_at_recall, task, one) == pytest.approx(expected)
    for q in (2, 5):
        rated = rows.mos_mask[:, q]
        true, mos = rows.mos[rated, q].astype(float), one.mos[rated, q]
        half = scales.panel_half_width(true)
        expected = {
            pairs.rmse: np.sqrt(np.mean((true - mos) ** 2)),
            pairs.rmse_star: np.sqrt(np.mean(np.maximum(np.abs(true - mos) - half, 0) ** 2)),
            pairs.plcc: scales.plcc(true, mos),
            pairs.skill: scales.skill(true, mos, rows.mos[rated, q - 2].astype(float)),
        }
        for make, figure in expected.items():
            assert pairs.value(make([q]), task, one) == pytest.approx(figure, rel=1e-6)


@pytest.mark.parametrize(
    "figure",
    [pairs.macro_f1, pairs.precision_at_recall, pairs.rmse([2, 5]), pairs.plcc([2])],
    ids=["f1", "precision", "rmse", "plcc"],
)
def test_a_weight_of_two_is_a_block_twice(task, said, figure):
    one, blocks = said(1.0, 0), ROWS // EACH
    weight = np.random.default_rng(1).integers(0, 3, blocks)
    rows = np.concatenate(
        [np.flatnonzero(task.block == b) for b in range(blocks) for _ in range(weight[b])]
    )
    again = Said(one.probability[rows], one.mos[rows])
    test = Examples(*(leaf[rows] for leaf in task.data.test))
    drawn = task._replace(
        data=types.SimpleNamespace(test=test, spec=SPEC), block=np.arange(len(rows))
    )
    expected = pairs.value(figure, drawn, again)
    assert float(figure(one, task)(weight[None].astype(float))[0]) == pytest.approx(expected)


def test_a_gap_tells_the_better_from_the_equal(task, said):
    good, bad = ([said(noise, s) for s in range(4)] for noise in (0.5, 2.0))
    assert pairs.gap(pairs.macro_f1, task, good, bad).above
    assert pairs.gap(pairs.macro_f1, task, bad, good).most < 0
    same = pairs.gap(pairs.macro_f1, task, good, good)
    assert same == (0.0, 0.0, 0.0, 0.0, 0.0)
    assert not same.above
    one = pairs.gap(pairs.rmse([2]), task, bad, good)
    assert one.block_low < one.mean < one.block_high


def test_blocks_widen_what_rows_alone_would_say(task, said):
    """Rows of a block that err together are less evidence than as many rows apart."""
    rng = np.random.default_rng(3)
    shift = np.repeat(rng.normal(size=(ROWS // EACH, 1)), EACH, 0)
    mos = task.data.test.mos
    a, b = Said(None, mos + shift), Said(None, mos + 0.5)
    blocks = pairs.gap(pairs.rmse([0]), task, [a, a], [b, b])
    rows = pairs.gap(pairs.rmse([0]), task._replace(block=np.arange(ROWS)), [a, a], [b, b])
    width = [g.block_high - g.block_low for g in (blocks, rows)]
    assert width[0] > 1.4 * width[1]


@pytest.mark.parametrize("scale", [1 / 12, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("rows", [500, 12_800, 60_000])
def test_less_work_is_in_proportion(scale, rows):
    kept, share = fits.smaller(scale, rows)
    assert min(rows, fits.LEAST_ROWS) <= kept <= rows
    assert kept * share == pytest.approx(scale * rows, rel=1e-3)

"""Maps of one column, and the scores that rank columns."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
import sklearn.feature_selection
import sklearn.metrics
import sklearn.preprocessing

from qoejax.data import scaling, selection

FLOATS = st.floats(-3.0000000054977558e38, 3.0000000054977558e38, width=32)
COMMON = st.sampled_from([0.0, -0.0, 1.0, 2.0, 1e9, -5.0])


def look(view, values):
    values = np.asarray(values, np.float64)
    return scaling.look(view, values, scaling.signed_log(values))


@pytest.fixture(scope="module")
def heavy():
    """Byte counts as they come: mostly zero, then nine decades, with popular sizes."""
    rng = np.random.default_rng(0)
    tail = np.floor(10 ** rng.uniform(0, 9, 6000))
    return np.concatenate([np.zeros(20_000), np.full(3000, 60.0), tail]).astype(np.float32)


@pytest.mark.parametrize("name", sorted(scaling.VIEWS))
@hypothesis.given(
    values=hnp.arrays(np.float32, st.integers(1, 40), elements=st.one_of(COMMON, FLOATS)),
    other=hnp.arrays(np.float32, 20, elements=FLOATS),
)
def test_every_view_is_monotone_and_bounded(name, values, other):
    view = scaling.VIEWS[name](values.astype(np.float64))
    seen = np.sort(np.concatenate([values, other]))
    mapped = look(view, seen)
    assert np.isfinite(mapped).all()
    assert (np.diff(mapped) >= 0).all()
    assert np.abs(mapped).max() <= scaling.LIMIT


@pytest.mark.parametrize(("name", "plain"), [("standard", np.array), ("signed_log", np.log1p)])
def test_standardised_views_have_mean_0_and_variance_1(name, plain):
    values = np.random.default_rng(0).gamma(3.0, 100.0, 5000)
    mapped = look(scaling.VIEWS[name](values), values)
    assert mapped.mean() == pytest.approx(0, abs=1e-9)
    assert mapped.var() == pytest.approx(1, rel=1e-9)
    np.testing.assert_allclose(mapped, scipy.stats.zscore(plain(values)), rtol=1e-9, atol=1e-12)


def test_ranks_of_ties_are_mid_ranks(heavy):
    view = scaling.uniform_ranks(heavy.astype(np.float64))
    n = len(heavy)
    zero, sixty = look(view, [0.0, 60.0])
    below = 20_000 + (heavy[23_000:] < 60).sum()
    count = (heavy == 60).sum()
    assert zero == pytest.approx(20_000 / n - 1, abs=1e-6)
    assert sixty == pytest.approx(2 * (below + count / 2) / n - 1, abs=1e-6)


def test_ranks_follow_the_distribution_between_knots(heavy):
    """All mid-ranks within half a percent, although there are few knots."""
    view = scaling.uniform_ranks(heavy.astype(np.float64))
    assert len(view.knots) < 4 * scaling.LEVELS < len(np.unique(heavy))
    exact = (scipy.stats.rankdata(heavy) - 0.5) / len(heavy)
    got = (look(view, heavy) + 1) / 2
    assert np.abs(got - exact).max() < 0.005


def test_normal_ranks_agree_with_scikit_learn():
    values = 10 ** np.random.default_rng(1).uniform(0, 9, 20_000)
    theirs = sklearn.preprocessing.QuantileTransformer(
        n_quantiles=1000, output_distribution="normal", subsample=None
    )
    logs = np.log1p(values)[:, None]
    expected = theirs.fit_transform(logs)[:, 0]
    got = look(scaling.normal_ranks(values), values)
    inner = np.abs(expected) < 3
    assert np.abs(got - expected)[inner].max() < 0.05
    assert scipy.stats.kstest(got, "norm").statistic < 0.01


def test_large_neighbours_stay_apart():
    """Float32 logs would merge neighbours of a large offset; the map works in float64."""
    values = np.float32(8.3e7) + 8 * np.arange(200, dtype=np.float32)
    mapped = look(scaling.normal_ranks(values.astype(np.float64)), values)
    assert (np.diff(mapped) > 0).all()


def test_far_outside_a_rank_is_an_end(heavy):
    view = scaling.normal_ranks(heavy.astype(np.float64))
    mapped = look(view, [-3e38, heavy.min(), heavy.max(), 3e38])
    assert mapped[0] == mapped[1]
    assert mapped[2] == mapped[3]


def test_mutual_information_of_known_tables():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 50_000)
    noise = rng.normal(size=len(label))
    assert selection.mutual_information(label.astype(float), label) == pytest.approx(
        np.log(4), abs=1e-3
    )
    flag = (label == 2).astype(float)
    expected = sklearn.metrics.mutual_info_score(label, flag)
    assert selection.mutual_information(flag, label) == pytest.approx(expected, abs=1e-4)
    assert selection.mutual_information(noise, label) < 3e-4
    assert selection.mutual_information(np.ones(len(label)), label) == 0.0


def test_mutual_information_is_about_that_of_nearest_neighbours():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 6000)
    values = np.exp(rng.normal(size=6000) + label)
    theirs = sklearn.feature_selection.mutual_info_classif(
        np.log(values)[:, None], label, random_state=0
    )
    assert selection.mutual_information(values, label) == pytest.approx(theirs[0], abs=0.03)


def test_the_correction_keeps_noise_from_outranking_a_weak_flag():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 10, 2000)
    flag = (rng.random(2000) < 0.3 + 0.7 * (label == 3)).astype(float)
    noise = rng.normal(size=2000)
    edges = np.quantile(noise, np.arange(1, 64) / 64)
    naive = sklearn.metrics.mutual_info_score(label, np.searchsorted(edges, noise))
    weak = selection.mutual_information(flag, label)
    assert naive > weak > selection.mutual_information(noise, label)


def test_variance_is_that_of_the_signed_log():
    values = np.array([0.0, 10.0, -1000.0])
    expected = np.var([0, np.log(11), -np.log(1001)])
    assert selection.variance(values, np.zeros(3, int)) == pytest.approx(expected)

import hypothesis
import hypothesis.strategies as st
import numpy as np

from qoejax.data import aside


@hypothesis.given(
    st.lists(st.integers(1, 70), min_size=1, max_size=6),
    st.floats(0.01, 0.99), st.integers(1, 12), st.integers(0, 1000),
)  # fmt: skip
def test_every_row_is_trained_on_or_kept_back_in_whole_runs(sizes, share, together, seed):
    order = np.random.default_rng(seed).permutation(sum(sizes))
    parts = np.split(order, np.cumsum(sizes)[:-1])
    trained, asides = aside.keep_back(parts, share, together, seed)
    for part, rest, own in zip(parts, trained, asides, strict=True):
        assert len(rest) > 0
        np.testing.assert_array_equal(np.sort(np.concatenate([rest, *own])), np.sort(part))
        runs = np.arange(len(part)) // together
        kept = np.isin(np.sort(part), np.concatenate(own))
        assert all(len(set(kept[runs == r])) == 1 for r in set(runs))
        if runs[-1] > 0:
            assert len(own.conformal) > 0
            count = min(max(1, round(share * (runs[-1] + 1))), runs[-1])
            assert len(np.unique(runs[kept])) == count


def test_a_client_keeps_back_the_same_rows_whoever_else_is_there():
    parts = [np.arange(40), np.arange(40, 100)]
    _, both = aside.keep_back(parts, 0.3, 4, 0)
    _, one = aside.keep_back(parts[:1], 0.3, 4, 0)
    np.testing.assert_array_equal(both[0].conformal, one[0].conformal)
    _, other = aside.keep_back(parts, 0.3, 4, 1)
    assert not np.array_equal(both[0].conformal, other[0].conformal)
    assert len(both[0].temperature) == 4 * 1  # of 3 runs
    assert len(both[0].conformal) == 4 * 2

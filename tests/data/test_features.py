"""Features inside a program against those of the host."""

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from qoejax.data import features, preprocess
from qoejax.data.table import CATEGORICAL, NUMERIC, Column, Spec, make_table

VOCAB = ("", "tcp", "udp", "icmp")
SPEC = Spec(
    "made_up",
    (
        *(Column(name, "", NUMERIC, False, "") for name in ("wide", "signed", "few")),
        Column("proto", "", CATEGORICAL, False, ""),
    ),
    ("benign", "attack"), (), {"proto": VOCAB}, "benign", 2,
)  # fmt: skip


def rows(seed, n=600):
    rng = np.random.default_rng(seed)
    wide = np.exp(4 * rng.standard_normal((n, 2))) * rng.integers(0, 2, (n, 2))
    signed = rng.standard_normal((n, 2)) * 50
    few = rng.integers(0, 4, (n, 2)) * 1e6
    codes = rng.integers(0, len(VOCAB), (n, 2))
    return np.stack([wide, signed, few, codes], -1).astype(np.float32)


def fitted(scale):
    x = rows(0)
    return preprocess.fit(SPEC, make_table(x, np.arange(len(x)) % 2), scale=scale)


@pytest.mark.parametrize("scale", ["quantile", "uniform", "standard", "both"])
def test_compiled_features_are_the_host_s(scale):
    stats = fitted(scale)
    x = rows(1)
    got = jax.jit(features.make(stats))(x)
    np.testing.assert_allclose(got, preprocess.apply(stats, x), atol=2e-5, rtol=1e-5)


COMPILED = {}


@hypothesis.given(
    arrays.arrays(
        np.float32, (1, 2, 3), elements=st.floats(-(2.0**99), 2.0**99, width=32, allow_nan=False)
    )
)
def test_any_finite_number_agrees(numbers):
    if not COMPILED:
        stats = fitted("quantile")
        COMPILED.update(stats=stats, run=jax.jit(features.make(stats)))
    x = np.concatenate([numbers, np.ones((1, 2, 1), np.float32)], -1)
    want = preprocess.apply(COMPILED["stats"], x)
    np.testing.assert_allclose(COMPILED["run"](x), want, atol=2e-5, rtol=1e-5)


def test_knots_themselves_are_exact():
    stats = fitted("quantile")
    view = stats.outputs[0].view
    x = np.zeros((len(view.knots), 2, 4), np.float32)
    x[:, :, 0] = view.knots[:, None]
    np.testing.assert_allclose(jax.jit(features.make(stats))(x)[:, 0, 0], view.targets, atol=1e-6)

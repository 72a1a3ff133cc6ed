"""What every net promises, over the table of nets and one made by a user."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qoejax.nets import NETS, Net
from tests.nets.helpers import jit

B, F, C, Q, M = 4, 11, 3, 2, 5
TINY = {
    "qoenet": {
        "width": 8,
        "depth": 1,
        "heads": 2,
        "mlp": 8,
        "embed_size": 2,
        "hidden": 8,
        "dropout": 0.3,
    },
    "mlp": {"width": 8, "depth": 1, "dropout": 0.3},
    "cnn": {"channels": (4, 4), "hidden": 8, "dropout": 0.3},
    "linear": {},
    "tabm": {"width": 16, "depth": 1, "embed_size": 4, "members": 2, "dropout": 0.3},
    "gru": {"hidden": 4, "dropout": 0.3},
    "lstm": {"hidden": 4, "dropout": 0.3},
    "cnn_lstm": {"channels": (4,), "hidden": 4, "dropout": 0.3},
    "transformer": {"width": 8, "depth": 1, "heads": 2, "mlp": 8, "dropout": 0.3},
    "ft_transformer": {"width": 8, "depth": 1, "heads": 2, "mlp": 8, "dropout": 0.3},
}
WITHOUT_DROPOUT = {"linear", "user"}


def user_net(*, classes, services, bins):
    """Ten lines without any library: what a reader would write."""

    def init(key, x):
        size = x.shape[1] * x.shape[2]
        shapes = {"logits": (size, classes), "mos": (size, services * bins)}
        keys = jax.random.split(key, len(shapes))
        return {n: jax.random.normal(k, shapes[n]) * 0.1 for n, k in zip(shapes, keys, strict=True)}

    def apply(params, x, *, key=None):
        out = {name: x.reshape(x.shape[0], -1) @ w for name, w in params.items()}
        return {**out, "mos": out["mos"].reshape(-1, services, bins)}

    return Net(init, apply)


class Case:
    """A tiny net with its parameters, inputs and compiled apply, made once."""

    def __init__(self, name, time):
        self.name, self.traces = name, 0
        make = user_net if name == "user" else NETS[name]
        self.net = make(classes=C, services=Q, bins=M, **TINY.get(name, {}))
        self.x = jax.random.normal(jax.random.key(7), (B, time, F))
        self.params = jit(self.net.init)(jax.random.key(0), self.x)

        def counted(params, x, key):
            self.traces += 1
            return self.net.apply(params, x, key=key)

        self.plain = jit(lambda params, x: counted(params, x, None))
        self.noisy = jit(counted)
        self.out = self.plain(self.params, self.x)


CASES = functools.cache(Case)  # each is compiled once


ALIKE = ("lstm", "cnn_lstm", "transformer")
"""Of the parts of others."""

FEW = [(n, 3) for n in [*NETS, "user"] if n not in ALIKE]
FEW += [("qoenet", 1), ("linear", 1), ("user", 1)]
"""Of a single record most nets do less of the same."""

MANY = [(n, t) for n in NETS for t in (1, 3) if (n, t) not in FEW]


@pytest.fixture(
    scope="module",
    params=[*FEW, *(pytest.param(case, marks=pytest.mark.slow) for case in MANY)],
    ids=lambda p: f"{p}",
)
def case(request):
    return CASES(*request.param)


def close(a, b, **kw):
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, **({"atol": 1e-5} | kw)), a, b)


def test_every_net_of_the_table_is_tested():
    assert set(TINY) == set(NETS)


def test_shapes_and_dtypes(case):
    assert {k: (v.shape, v.dtype) for k, v in case.out.items()} == {
        "logits": ((B, C), jnp.float32),
        "mos": ((B, Q, M), jnp.float32),
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(case.params)} == {jnp.dtype("float32")}


def test_init_reads_the_shape_only(case):
    init = jit(case.net.init)
    again = init(jax.random.key(0), jnp.full_like(case.x, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, case.params, again)
    other = init(jax.random.key(1), case.x)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (again, other)), strict=True))


def test_examples_do_not_see_each_other(case):
    """What stands in other slots, even NaN, and the order of slots do not matter."""
    order = jnp.array([2, 0, 3, 1])
    close(case.plain(case.params, case.x[order]), jax.tree.map(lambda a: a[order], case.out))
    spoilt = case.x.at[2:].set(jnp.nan)
    both = case.plain(case.params, spoilt)
    close(jax.tree.map(lambda a: a[:2], both), jax.tree.map(lambda a: a[:2], case.out))
    assert jnp.isnan(both["logits"][2:]).all()  # the net does read its input


def test_every_record_and_feature_is_read(case):
    """Changing any one value of an example changes its logits."""
    size = case.x[0].size
    shifts = jnp.eye(size).reshape(size, *case.x.shape[1:])
    moved = jit(jax.vmap(lambda s: case.net.apply(case.params, case.x[:1] + s[None])["logits"][0]))(
        shifts
    )
    distance = jnp.abs(moved - jnp.broadcast_to(case.out["logits"][0], moved.shape)).max(-1)
    assert distance.shape == (size,)
    assert (distance > 0).all()


def test_dropout_is_switched_by_the_key(case):
    close(case.plain(case.params, case.x), case.out, atol=0)
    noisy = [case.noisy(case.params, case.x, jax.random.key(k))["logits"] for k in (1, 1, 2)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    plain = case.out["logits"]
    if case.name in WITHOUT_DROPOUT:
        close(noisy[0], plain)
    else:
        assert (noisy[0] != noisy[2]).any()
        assert (noisy[0] != plain).any()


def test_gradients_are_finite_and_reach_every_parameter(case):
    def loss(params):
        out = case.net.apply(params, case.x, key=jax.random.key(5))
        return sum(
            jnp.sum(jnp.sin(v + jnp.arange(v.size * 1.0).reshape(v.shape))) for v in out.values()
        )

    for path, grad in jax.tree_util.tree_leaves_with_path(jit(jax.grad(loss))(case.params)):
        assert jnp.isfinite(grad).all(), path
        assert (grad != 0).any(), path


def test_vmap_over_clients_equals_a_loop(case):
    shift = [jax.tree.map(lambda a, k=k: a + 0.1 * k, case.params) for k in (0, 1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *shift)
    xs = jnp.stack([case.x, case.x + 1, case.x * 2])
    together = jit(jax.vmap(lambda p, x: case.net.apply(p, x)))(stacked, xs)
    alone = [case.plain(p, x) for p, x in zip(shift, xs, strict=True)]
    close(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


def test_one_trace_a_shape(case):
    before = case.traces
    for step in range(3):
        case.plain(jax.tree.map(lambda a, s=step: a + s, case.params), case.x * step)
    assert case.traces == before


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("qoenet", "gru", "mlp", "user") else pytest.mark.slow)
        for n in [*NETS, "user"]
    ],
)
def test_it_learns(name):
    """Two hundred steps on a rule of one feature, shared by all nets."""
    case = CASES(name, 1)
    x = jax.random.normal(jax.random.key(3), (64, *case.x.shape[1:]))
    label = (x[:, -1, 0] > 0).astype(jnp.int32)
    optimizer = optax.adam(3e-2)

    def loss(params):
        logits = case.net.apply(params, x)["logits"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    def step(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(loss)(params)
        with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
            update, state = optimizer.update(grad, state, params)
        return (optax.apply_updates(params, update), state), value

    start = (case.params, optimizer.init(case.params))
    losses = jit(lambda c: jax.lax.scan(step, c, length=200)[1])(start)
    assert losses[-1] < 0.5 * np.log(C) < losses[0]


@pytest.mark.parametrize("name", [*NETS, "user"])
def test_the_order_of_records_matters(name):
    case = CASES(name, 3)
    swapped = case.plain(case.params, case.x[:, jnp.array([1, 0, 2])])
    assert (jnp.abs(swapped["logits"] - case.out["logits"]).max(-1) > 1e-6).all()


@pytest.mark.parametrize(
    "name", ["qoenet", *(pytest.param(n, marks=pytest.mark.slow) for n in NETS if n != "qoenet")]
)
def test_bfloat16_computes_the_same_and_keeps_float32_parameters(name):
    x = jax.random.normal(jax.random.key(7), (B, 2, F))
    half, full = (
        NETS[name](classes=C, services=Q, bins=M, dtype=d, **TINY[name])
        for d in ("bfloat16", "float32")
    )
    params = jit(half.init)(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    low, high = jit(half.apply)(params, x), jit(full.apply)(params, x)
    assert low["logits"].dtype == jnp.float32
    close(low, high, atol=0.1)
    assert (low["logits"] != high["logits"]).any()


@pytest.mark.parametrize("name", list(NETS))
def test_without_services_there_is_no_mos(name):
    net = NETS[name](classes=C, services=0, bins=M, **TINY[name])
    x = jnp.ones((2, 1, F))
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    out = jax.eval_shape(net.apply, params, x)
    assert (out["logits"].shape, out["mos"].shape) == ((2, C), (2, 0, M))
    assert "mos" not in params["heads"]

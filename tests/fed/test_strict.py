"""Which bits are promised, and which are not: strict mode, reruns, resumes, tolerances.

Nets are small: what they cost here is compilation, once for each device.
"""

import functools
import json
import math
import os
import subprocess
import sys

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qoejax import trees
from qoejax.fed import aggregate, client, engine, server, strict
from qoejax.fed.aggregate.exact import exact_sum
from qoejax.fed.participation import Participation
from qoejax.run import runtime

from . import tiny

ROUNDS = 3
MODES = ("turn", "chunk", pytest.param("shard", marks=pytest.mark.multidevice), "strict")
PART = Participation(dropout=0.2, stragglers=0.5)


# Exact sums.


def terms(clients, columns=64, seed=0):
    """Weights and values of very different sizes."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(0, 5, (clients, columns)))
    values = rng.normal(size=(clients, columns)) * size
    return rng.uniform(0, 1000, clients).astype(np.float32), values.astype(np.float32)


@pytest.mark.parametrize("clients", [1, 2, 3, 127, 128, 1000])
def test_the_exact_sum_is_that_of_unbounded_precision(clients):
    weight, values = terms(clients)
    products = (weight[:, None] * values).astype(float)
    want = np.array([math.fsum(column) for column in products.T])
    got = np.asarray(jax.jit(exact_sum)(weight, values))
    # Two float32 roundings of the sum, and 2 b bits below the largest term.
    bits = 2 * (31 - clients.bit_length())
    slack = 2.0**-23 * np.abs(want) + clients * 2.0 ** (1 - bits) * np.abs(products).max(0)
    assert np.all(np.abs(got - want) <= slack)


@pytest.mark.parametrize("clients", [9, 300])
def test_order_changes_a_float_sum_but_no_bit_of_an_exact_one(clients):
    weight, values = terms(clients, columns=500)
    plain = jax.jit(lambda w, v: jnp.tensordot(w, v, 1))
    exact = jax.jit(exact_sum)
    differ = 0
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(clients)
        tiny.equal(exact(weight[order], values[order]), exact(weight, values))
        differ += int((plain(weight[order], values[order]) != plain(weight, values)).sum())
    assert differ > 100


@hypothesis.given(
    values=hnp.arrays(np.float32, (6, 3), elements=st.integers(-(10**9), 10**9)),
    shift=st.integers(-60, 60),
    weight=hnp.arrays(np.float32, 6, elements=st.integers(0, 2**24)),
    order=st.permutations(range(6)),
)
def test_exact_sums_of_any_numbers(values, shift, weight, order):
    order, values = np.array(order), np.ldexp(values, shift)
    total = _jitted(weight, values)
    tiny.equal(_jitted(weight[order], values[order]), total)
    want = (weight.astype(float)[:, None] * values.astype(float)).sum(0)
    largest = np.abs(weight[:, None] * values.astype(float)).max(0)
    np.testing.assert_array_less(np.abs(total - want), 2e-6 * largest + 1e-30)


_jitted = jax.jit(exact_sum)


def test_an_exact_sum_of_too_many_is_refused():
    with pytest.raises(ValueError, match="more than 32 bits"):
        jax.eval_shape(exact_sum, *(jax.ShapeDtypeStruct((2**31,), jnp.float32),) * 2)


# Engines.


def wide_loss(params, batch, key):
    """Half the mean squared error of a net with one hidden layer."""
    error = jnp.tanh(batch.x[:, 0] @ params["a"]) @ params["b"] - batch.mos[:, 0]
    total = (0.5 * error**2 * batch.weight).sum()
    n = batch.weight.sum()
    return total / jnp.maximum(n, 1.0), {"loss": total, "n": n}


def params(name="wide"):
    """Of the net, or of the linear model."""
    if name != "wide":
        return tiny.params(name)
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(3, 256)), rng.normal(size=256) / 16
    return {"a": jnp.asarray(a, jnp.float32), "b": jnp.asarray(b, jnp.float32)}


def make(mode, name="wide", rule="weighted_mean", devices=2, **kwargs):
    """FedAvg of the net, or another algorithm of the linear model."""
    update = (
        client.fedavg(wide_loss, client.momentum(), lr=0.05, batch_size=tiny.BATCH)
        if name == "wide"
        else tiny.update(name, lr=0.02)
    )
    exact = aggregate.EXACT.get(rule) if mode == "strict" else None
    settings = {
        "client_update": update,
        "aggregator": tiny.aggregator_of(rule) if exact is None else exact(),
        "server_opt": server.momentum(),
        "schedule": client.cosine(8),
        "offset": tiny.OFFSET,
        "count": tiny.COUNT,
        "cohort_size": 5,
        "epochs": 1,
        "batch_size": tiny.BATCH,
        "chunk": 2,
        "devices": jax.devices()[:devices],
        **kwargs,
    }
    if mode == "strict":
        return strict.make_engine(**settings)
    return engine.make_engine(client_axis=mode, **settings)


@functools.cache
def played(mode, devices=2, chunk=2):
    """Engine, rows, and host copies of the state before each round and after the last."""
    if mode == "strict":
        eng, data, _ = strictly("wide", "weighted_mean", 4)
    else:
        eng = make(mode, devices=devices, chunk=chunk)
        data = eng.place(tiny.examples())
    state, kept = eng.init(params()), []
    for _ in range(ROUNDS):
        kept.append(jax.device_get(state))
        state, metrics = eng.block(state, data, tiny.key(), 1)
    return eng, data, [*kept, jax.device_get(state)], jax.device_get(metrics)


@pytest.mark.parametrize("mode", MODES)
def test_rerun_and_resume_at_any_round_end_at_the_same_digest(mode):
    eng, data, kept, _ = played(mode)
    want = trees.sha256(kept[-1])
    with tiny.count_compilations() as compiled:
        for done in range(ROUNDS):
            state = kept[done]
            for _ in range(done, ROUNDS):
                state, _ = eng.block(state, data, tiny.key(), 1)
            assert trees.sha256(jax.device_get(state)) == want
    assert not compiled
    assert len({trees.sha256(state) for state in kept}) == ROUNDS + 1


@pytest.mark.multidevice
@pytest.mark.parametrize(
    ("mode", "devices"),
    [
        ("chunk", 2),
        ("shard", 4),
        *(
            pytest.param(mode, devices, marks=pytest.mark.slow)
            for mode, devices in [("chunk", 1), ("chunk", 4), ("shard", 1), ("shard", 2)]
        ),
    ],
)
def test_other_chunks_and_devices_agree_within_the_stated_tolerance(mode, devices):
    """docs/reproducibility.md: parameters within 1e-5 over a few rounds."""
    other = played(mode, devices, chunk=devices)[2][-1]
    turn = played("turn")[2][-1]
    tiny.close(other.params, turn.params, rtol=0, atol=1e-5)


CASES = [
    ("wide", "weighted_mean"),
    ("scaffold", "mean"),  # has states of clients, and of the server
    pytest.param("wide", "multi_krum", marks=pytest.mark.slow),
    pytest.param("fedper", "weighted_mean", marks=pytest.mark.slow),
    pytest.param("feddyn", "coordinate_median", marks=pytest.mark.slow),
]


@functools.cache
def strictly(name, rule, devices):
    """Engine, rows, and state and metrics of the rounds in one block."""
    part = PART if name != "wide" else engine.EVERYONE
    eng = make("strict", name, rule, devices, participation=part)
    data = eng.place(tiny.examples())
    return eng, data, jax.device_get(eng.block(eng.init(params(name)), data, tiny.key(), ROUNDS))


@pytest.mark.multidevice
@pytest.mark.parametrize(("name", "rule"), CASES[1:])
def test_strict_rounds_are_the_same_on_any_number_of_devices(name, rule):
    tiny.equal(strictly(name, rule, 2)[2], strictly(name, rule, 1)[2])


@pytest.mark.multidevice
@pytest.mark.parametrize("piece", [1, 2, 3, 5])
@pytest.mark.parametrize(("name", "rule"), CASES)
def test_strict_rounds_are_the_same_in_any_order_and_slices(name, rule, piece):
    """By halves, as over the wire: clients shuffled anew each round, cut into other slices."""
    eng, data, want = strictly(name, rule, 4 if name == "wide" else 2)
    state, rng = eng.init(params(name)), np.random.default_rng(piece)
    for number in range(ROUNDS):
        cohort = jax.device_get(eng.cohort_for(jnp.int32(number), tiny.key()))
        order = rng.permutation(eng.size)
        cohort = jax.tree.map(lambda leaf, order=order: leaf[order], cohort)
        parts = [eng.local(state, data, part, tiny.key()) for part in strict.cut(cohort, piece)]
        host = [jax.device_get(part.deltas) for part in parts]
        deltas = jax.tree.map(lambda *leaves: np.concatenate(leaves), *host)
        arrived = np.ones(eng.size, bool)
        state, metrics = eng.server(state, cohort, deltas, arrived, parts, tiny.key())
        tiny.equal(metrics, jax.tree.map(lambda m, n=number: m[n], want[1]))
    tiny.equal(state, want[0])


def test_strict_slices_keep_all_devices_busy_and_hold_every_client():
    eng = make("strict", devices=2)
    cohort = jax.device_get(eng.cohort_for(jnp.int32(0), tiny.key()))
    pieces = eng.slices(cohort)
    assert [len(p.weight) for p in pieces] == [4, 1]
    tiny.equal(jax.tree.map(lambda *a: np.concatenate(a), *pieces), cohort)


def child(devices):
    """Digest of the strict rounds in a process with that many devices and as many threads."""
    env = os.environ | {
        "PJRT_NPROC": str(runtime.pool_size() or len(jax.devices())),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    code = "from tests.fed import test_strict; test_strict.print_digest()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def print_digest():
    """Run by ``child``."""
    out = strictly("wide", "weighted_mean", jax.device_count())[2]
    print(json.dumps({"devices": jax.device_count(), "sha256": trees.sha256(out)}))


@pytest.mark.slow
@pytest.mark.multidevice
def test_processes_with_other_numbers_of_devices_end_at_the_same_digest():
    want = trees.sha256(strictly("wide", "weighted_mean", 4)[2])
    for devices in (1, 2):
        assert child(devices) == {"devices": devices, "sha256": want}


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"chunk": 0}, "chunk is 0: expected at least 1"),
        ({"cohort_size": 6}, "cohort_size is 6: expected 1 to 5"),
    ],
)
def test_bad_arguments_are_named(kwargs, words):
    with pytest.raises(ValueError, match=words):
        make("strict", **kwargs)


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="'strict', which runs in one process"):
        make("strict")


def test_a_block_without_rounds_is_refused():
    eng = make("strict")
    with pytest.raises(ValueError, match="at least 1 round"):
        eng.block(eng.init(params()), tiny.examples(), tiny.key(), 0)

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from qoejax.run.checkpoint import Checkpoints
from qoejax.run.errors import RunError


def state_of(step):
    rng = np.random.default_rng(step)
    return {
        "round": np.int32(step),
        "params": {"w": rng.standard_normal((64, 32)).astype(np.float32), "b": np.zeros(3, "f4")},
        "none": (),
    }


@pytest.fixture
def saved(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path, keep=3)) as c:
        for step in (1, 2, 3, 4):
            c.save(step, state_of(step))
    return tmp_path


def restore(folder):
    with contextlib.closing(Checkpoints(folder, keep=3)) as c:
        return c.restore(jax.tree.map(np.zeros_like, state_of(0)))


def damage(folder):
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def test_newest_comes_back_to_the_bit(saved):
    step, state = restore(saved)
    assert step == 4
    jax.tree.map(np.testing.assert_array_equal, state, state_of(4))
    assert sorted(p.name for p in saved.iterdir() if p.name.isdigit()) == ["2", "3", "4"]


def test_empty_folder_has_none(tmp_path):
    assert restore(tmp_path) is None


def test_parameters_of_any_kept_step_are_read_alone(saved):
    with contextlib.closing(Checkpoints(saved, keep=3)) as c:
        for step in (2, 4):
            found = c.params(step)
            jax.tree.map(np.testing.assert_array_equal, found, state_of(step)["params"])
            assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))


def test_a_flipped_bit_is_found_and_set_aside(saved):
    damage(saved / "4")
    step, state = restore(saved)
    assert step == 3
    jax.tree.map(np.testing.assert_array_equal, state, state_of(3))
    assert [p.name for p in (saved / "quarantine").iterdir()] == ["4.0"]
    assert restore(saved)[0] == 3


def test_saving_goes_on_after_a_quarantine(saved):
    damage(saved / "4")
    with contextlib.closing(Checkpoints(saved, keep=3)) as c:
        assert c.restore(state_of(0))[0] == 3
        c.save(4, state_of(4))
    assert restore(saved)[0] == 4


def test_missing_metadata_falls_back(saved):
    (saved / "4" / "_CHECKPOINT_METADATA").unlink()
    assert restore(saved)[0] == 3


def test_nothing_sound_is_an_error_that_names_the_folder(saved):
    for step in (2, 3, 4):
        damage(saved / str(step))
    with pytest.raises(RunError, match=f"no checkpoint in {saved} is sound"):
        restore(saved)


@pytest.mark.parametrize("array", [np.zeros, jnp.zeros], ids=["host", "device"])
def test_another_model_is_refused_and_left_alone(saved, array):
    like = state_of(0) | {"params": {"w": array((2, 2), "f4"), "b": np.zeros(3, "f4")}}
    with (
        contextlib.closing(Checkpoints(saved, keep=3)) as c,
        pytest.raises(
            RunError,
            match=r"4 is of another model, .* it has params/w of shape \(64, 32\), expected",
        ),
    ):
        c.restore(like)
    assert restore(saved)[0] == 4


@pytest.mark.multidevice
def test_what_one_mesh_saved_another_restores(tmp_path):
    def on(devices):
        mesh = jax.make_mesh(
            (devices,), ("clients",), (AxisType.Auto,), devices=jax.devices()[:devices]
        )
        layout = {
            "whole": NamedSharding(mesh, PartitionSpec()),
            "split": NamedSharding(mesh, PartitionSpec("clients")),
        }
        return jax.device_put({"whole": np.arange(3.0), "split": np.eye(4)}, layout)

    with contextlib.closing(Checkpoints(tmp_path, keep=3)) as c:
        c.save(1, on(4))
    for devices in (1, 2):
        like = on(devices)
        with contextlib.closing(Checkpoints(tmp_path, keep=3)) as c:
            _, state = c.restore(jax.tree.map(jnp.zeros_like, like))
        for name in like:
            np.testing.assert_array_equal(state[name], like[name])
            assert state[name].sharding.is_equivalent_to(like[name].sharding, like[name].ndim)

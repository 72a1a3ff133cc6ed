"""An exported model gives the outputs of the one that it came from, in a process without flax."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from qoejax.data.errors import DataError
from qoejax.run import artefact, build, compare_export, export, model, tables
from qoejax.run.errors import RunError

FRESH = """
import json, pathlib, sys
import numpy as np
from qoejax.run import artefact
run = artefact.Runner(artefact.load(pathlib.Path(sys.argv[1])))
np.savez(sys.argv[3], **run(np.load(sys.argv[2])))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture(scope="module")
def exported(wired_run, tmp_path_factory):
    """(model, folder of its artefact, raw test rows)."""
    trained = model.load(wired_run[0])
    folder = tmp_path_factory.mktemp("exported") / "artefact"
    export.write(trained, folder)
    return trained, folder, tables.held_out(build.from_plain(trained.config))


def test_a_fresh_process_without_flax_has_equal_outputs(exported, tmp_path):
    trained, folder, rows = exported
    np.save(tmp_path / "x.npy", rows.x[:70])
    files = [str(p) for p in (folder, tmp_path / "x.npy", tmp_path / "out.npz")]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not {"flax", "optax", "orbax", "ml_collections"} & set(json.loads(done.stdout))
    x = build.examples(trained.spec, trained.stats, rows).x[:70]
    want = trained.predictor()(trained.params, x)
    with np.load(tmp_path / "out.npz") as got:
        assert set(got.files) == set(want)
        for name in got.files:
            np.testing.assert_allclose(got[name], want[name], atol=1e-4)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_smaller_weights_decide_alike(exported, tmp_path, weights):
    trained, _, _ = exported
    facts = export.write(trained, tmp_path, weights)
    assert facts["weight_bytes"] < export.size(trained, "float32")
    result = compare_export.on_test_split(trained, tmp_path)
    assert result["same_class"] > 0.95
    assert 0 < result["largest_gap"]["logits"] < 1


def test_int8_is_within_half_a_step_of_each_weight():
    leaf = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    leaf[..., 2] = 0
    codes, scale = export.WEIGHTS["int8"](leaf)
    assert codes.dtype == np.int8
    assert scale.shape == (7,)
    error = np.abs(np.asarray(export.restore((codes, scale))) - leaf)
    assert (error <= scale / 2 * (1 + 1e-5)).all()


def test_what_is_damaged_or_wrong_is_refused(exported, tmp_path):
    trained, folder, rows = exported
    with pytest.raises(RunError, match=r"artefact\.json is missing"):
        artefact.load(tmp_path)
    for name in (artefact.PROGRAM, artefact.FACTS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    data = bytearray((folder / artefact.PROGRAM).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / artefact.PROGRAM).write_bytes(bytes(data))
    with pytest.raises(RunError, match="is damaged"):
        artefact.load(tmp_path)
    with pytest.raises(RunError, match="weights 'int2'"):
        export.write(trained, tmp_path, "int2")
    with pytest.raises(RunError, match="platform 'abacus'"):
        export.write(trained, tmp_path, platforms=["abacus"])
    stacked = trained._replace(stacked=True)
    with pytest.raises(RunError, match="one model per client"):
        export.write(stacked, tmp_path)
    loaded = artefact.load(folder)
    bad = rows.x[:1].copy()
    bad[0, 0, loaded.seen[0]] = np.nan
    with pytest.raises(DataError, match=loaded.spec.columns[loaded.seen[0]].name):
        artefact.check(loaded, bad)


def test_another_device_is_refused_by_name(exported, tmp_path, monkeypatch):
    trained, _, _ = exported
    export.write(trained, tmp_path, platforms=["cpu", "cuda"])
    assert artefact.load(tmp_path).facts["platforms"] == ["cpu", "cuda"]
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(RunError, match="--platforms=tpu"):
        artefact.load(tmp_path)

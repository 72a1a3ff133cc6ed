"""The packed base: windows, MOS, blocks, counts, statistics, and nothing half-written."""

import types

import numpy as np
import pytest

from qoejax.data import load, packed
from qoejax.data.errors import DataError
from qoejax.data.table import QOME, Column, Service, Spec, concatenate, make_table, take

COLUMNS = (
    Column("rate", "packets/s", "numeric", False, "packets a second"),
    Column("kind", "", "categorical", False, "kind of device"),
)
SERVICES = (Service("voice", 3), Service("telemetry", None, QOME))
SPEC = Spec("toy", COLUMNS, ("calm", "storm"), SERVICES, {}, "calm", 3)
FINAL = SPEC._replace(vocab={"kind": ("", "lamp", "lock")})


def toy_rows(rows, seed):
    rng = np.random.default_rng(seed)
    x = np.stack([rng.lognormal(3, 2, (rows, 3)), rng.integers(0, 3, (rows, 3))], -1)
    mos = rng.uniform(1, 5, (rows, 2))
    return make_table(x, rng.integers(0, 2, rows), rng.integers(-1, 4, rows), mos, mos > 2)


class Toy(packed.PackedBuilder, skip_registration=True):
    """Two shards of windows with MOS; sizes and failures by class attributes."""

    name = "toy"
    sizes = ((9000, 9001), (40, 0))
    fails = False

    @classmethod
    def get_metadata(cls):
        return types.SimpleNamespace(description="A toy.", citation="")

    def _spec(self):
        return SPEC

    def _plan(self, manual_dir, scratch):
        assert manual_dir is None
        (scratch / "temporary").write_text("x")

        def shard(rows, seed):
            whole = toy_rows(rows, seed)
            for start in range(0, rows, 1000):
                yield take(whole, slice(start, start + 1000))
            if self.fails:
                raise DataError("toy.csv: broken.")

        shards = {
            split: [lambda r=r, i=i: shard(r, i) for i, r in enumerate(rows)]
            for split, rows in zip(("train", "test"), self.sizes, strict=True)
        }
        return packed.Plan(shards, lambda: (FINAL, {"answer": 42}))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    made = Toy(data_dir=str(tmp_path_factory.mktemp("toy")))
    made.download_and_prepare()
    return Toy(data_dir=str(made.data_path.parents[1]))


def test_rows_come_back_bit_for_bit(toy):
    for split, sizes in zip(("train", "test"), Toy.sizes, strict=True):
        spec, table = load.table(toy, split)
        assert spec == FINAL
        expected = concatenate([toy_rows(rows, i) for i, rows in enumerate(sizes)])
        for name, found, wanted in zip(table._fields, table, expected, strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=name)
            assert found.dtype == wanted.dtype
        assert not list(toy.data_path.glob("scratch*"))


def test_an_example_is_a_block(toy):
    lengths = [len(block["label"]) for block in toy.as_data_source(split="train")]
    assert lengths == [8192, 808, 8192, 809]
    assert toy.info.splits["train"].num_examples == 4
    assert toy.info.metadata["rows"] == {"train": 18001, "test": 40}


def test_counts_and_statistics_are_of_training_rows(toy):
    _, table = load.table(toy, "train")
    meta = toy.info.metadata
    assert meta["answer"] == 42
    assert list(meta["class_counts"]["train"].values()) == np.bincount(table.label).tolist()
    assert set(meta["train_statistics"]) == {"rate"}  # A code has no mean.
    x = table.x[:, :, 0].astype(np.float64)
    for key, value in (("mean", x.mean()), ("std", x.std()), ("min", x.min()), ("max", x.max())):
        np.testing.assert_allclose(meta["train_statistics"]["rate"][key], value, rtol=1e-11)


def test_an_exception_leaves_nothing(tmp_path):
    class Broken(Toy, skip_registration=True):
        name = "broken"
        fails = True

    data_dir = tmp_path / "new" / "data"
    with pytest.raises(DataError, match=r"toy\.csv: broken"):
        Broken(data_dir=str(data_dir)).download_and_prepare()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_split_is_refused(tmp_path):
    class Empty(Toy, skip_registration=True):
        name = "empty"
        sizes = ((5, 5), (0, 0))

    with pytest.raises(DataError, match="no row fell into the test split; 10 usable rows"):
        Empty(data_dir=str(tmp_path)).download_and_prepare()
    assert list(tmp_path.iterdir()) == []


def test_preparing_prints_nothing(tmp_path, capsys):
    class Quiet(Toy, skip_registration=True):
        name = "quiet"
        sizes = ((5, 5), (5, 0))

    with load._no_tfds_bars():
        Quiet(data_dir=str(tmp_path)).download_and_prepare()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 0, 3), (10,), (4, 4, 4, 4), (25, 1)])
def test_blocks_cut_and_join_without_loss(sizes):
    tables = [toy_rows(rows, i) for i, rows in enumerate(sizes)]
    out = list(packed.blocks(iter(tables), 5))
    assert [len(t.label) for t in out[:-1]] == [5] * (len(out) - 1)
    assert 0 < len(out[-1].label) <= 5
    np.testing.assert_array_equal(concatenate(out).x, concatenate(tables).x)

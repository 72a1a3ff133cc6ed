import pathlib

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from qoejax.data import load
from qoejax.data.builders.simulated_iot import simulated_iot_dataset_builder as simulated
from qoejax.data.errors import DataError
from qoejax.simulate import episodes, mixes

TINY = simulated.SIZES["tiny"]


@pytest.fixture(scope="module")
def heard():
    return []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, heard):
    folder = tmp_path_factory.mktemp("datasets")
    tell = lambda rows, share: heard.append((rows, share))  # noqa: E731
    return load.builder("simulated_iot/tiny", folder, progress=tell)


@pytest.fixture(scope="module")
def tables(tiny):
    spec, train = load.table(tiny, "train")
    return spec, train, load.table(tiny, "test")[1]


def test_spec_names_everything(tables):
    spec, train, _ = tables
    assert spec.dataset == "simulated_iot/tiny"
    assert tuple(c.name for c in spec.columns) == tuple(f.name for f in episodes.FEATURES)
    assert all(c.unit and c.why and not c.leaky for c in spec.columns)
    assert spec.label_names == ("benign", "ddos", "slow_dos", "scan", "brute_force")
    assert [s.label for s in spec.services] == ["mos_voice_1s"]
    assert spec.benign == "benign"
    assert train.x.shape[1:] == (spec.window, len(spec.columns))


def test_rows_are_whole_episodes_of_every_site_on_both_sides(tables):
    _, train, test = tables
    each = simulated.SETTINGS.examples()
    held = TINY.episodes // simulated.TEST_EVERY
    for table, episodes_each in ((train, TINY.episodes - held), (test, held)):
        np.testing.assert_array_equal(np.bincount(table.group), [episodes_each * each] * TINY.sites)
        assert np.isfinite(table.x).all()
        assert table.mos_mask.all()
        assert 1 <= table.mos.min() <= table.mos.max() <= 4.41


def test_no_second_of_a_test_episode_is_in_training(tables):
    _, train, test = tables

    def seconds(table):
        return {second.tobytes() for second in table.x.reshape(-1, table.x.shape[-1])}

    assert not seconds(train) & seconds(test)


def test_rows_are_those_of_the_simulator(tables):
    # Row 20 of the training split: third training episode of site 0, which is episode 2.
    _, train, _ = tables
    key = jax.random.key(simulated.SEED)
    expected = jax.jit(episodes.examples, static_argnames="settings")(
        key, np.int32(0), np.int32(2), settings=simulated.SETTINGS
    )
    np.testing.assert_allclose(train.x[20:30], expected.x, rtol=1e-4)
    np.testing.assert_array_equal(train.label[20:30], expected.label)
    np.testing.assert_allclose(train.mos[20:30], expected.mos, atol=1e-3)


def test_every_class_is_there(tables):
    spec, train, _ = tables
    assert set(train.label) == set(range(len(spec.label_names)))


def test_metadata_says_how_it_was_made(tiny):
    metadata = tiny.info.metadata
    assert metadata["seed"] == simulated.SEED
    assert metadata["rows"] == {"train": 240, "test": 60}
    assert metadata["settings"]["horizon"] == 1
    assert sum(metadata["class_counts"]["train"].values()) == 240


def test_progress_is_heard_to_the_end(tiny, heard):
    assert tiny.data_path.exists()
    assert heard[-1] == (300, 1.0)
    assert heard == sorted(heard)


def test_prepared_twice_the_same(tables, tmp_path):
    again = load.table(load.builder("simulated_iot/tiny", tmp_path), "train")[1]
    for one, other in zip(tables[1], again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_unknown_config_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no config 'huge'; it has small, standard, tiny"):
        load.builder("simulated_iot/huge", tmp_path)


def test_sizes_are_those_of_the_readme():
    text = pathlib.Path(simulated.__file__).with_name("README.md").read_text()
    each = simulated.SETTINGS.examples()
    for name, size in simulated.SIZES.items():
        held = size.sites * (size.episodes // simulated.TEST_EVERY) * each
        train = size.sites * size.episodes * each - held
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1:] == [str(size.sites), str(size.episodes), f"{train:,} + {held:,}"]


def test_small_is_a_part_of_standard():
    small, standard = simulated.SIZES["small"], simulated.SIZES["standard"]
    assert small.sites <= standard.sites
    assert small.episodes <= standard.episodes


def test_tfds_knows_it_by_name():
    assert tfds.core.registered.imported_builder_cls("simulated_iot") is simulated.Builder
    assert next(iter(simulated.SIZES)) == simulated.Builder.DEFAULT_BUILDER_CONFIG_NAME
    assert mixes.LABELS[0] == "benign"

import pathlib
import shutil

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from qoejax.data import load
from qoejax.data.builders.simulated_iot import bootstrap
from qoejax.data.builders.simulated_iot import simulated_iot_dataset_builder as simulated
from qoejax.data.builders.simulated_iot.configs import CONFIGS, TEST_EVERY, parts
from qoejax.data.errors import DataError
from qoejax.data.table import MOS, QOME, persistence
from qoejax.simulate import attacks, episodes, mixes, observe

TINY = CONFIGS["tiny"]
DUMMY = pathlib.Path(bootstrap.__file__).parents[1] / "ciciot2023" / "dummy_data" / "merged"


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
    assert tuple(c.name for c in spec.columns) == tuple(f.name for f in observe.FEATURES)
    assert all(c.unit and c.why and not c.leaky for c in spec.columns)
    assert spec.label_names == mixes.LABELS
    assert spec.benign == "benign"
    assert train.x.shape[1:] == (spec.window, len(spec.columns))
    labels = [s.label for s in spec.services]
    assert labels[:5] == [f"mos_voice_{h}s" for h in (0, 1, 3, 5, 10)]
    assert labels[-1] == "qome_telemetry_10s"
    assert len(labels) == len(set(labels)) == 20
    assert persistence(spec)[:7] == (None, 0, 0, 0, 0, None, 5)


def test_rows_are_whole_episodes_of_every_site_on_both_sides(tables):
    spec, train, test = tables
    each = simulated.SETTINGS.examples()
    held = TINY.episodes // TEST_EVERY
    for table, episodes_each in ((train, TINY.episodes - held), (test, held)):
        np.testing.assert_array_equal(np.bincount(table.group), [episodes_each * each] * TINY.sites)
        assert np.isfinite(table.x).all()
        assert table.mos_mask.all()
        for q, service in enumerate(spec.services):
            low, high = {MOS: (1, 5), QOME: (0, 1)}[service.scale]
            assert low <= table.mos[:, q].min() <= table.mos[:, q].max() <= high


def test_no_second_of_a_test_episode_is_in_training(tables):
    _, train, test = tables

    def seconds(table):
        return {second.tobytes() for second in table.x.reshape(-1, table.x.shape[-1])}

    assert not seconds(train) & seconds(test)


def test_rows_are_those_of_the_simulator(tables):
    # Row 20 of the training split: third training episode of site 0, which is episode 2.
    _, train, _ = tables
    key = jax.random.key(simulated.SEED)
    world = episodes.World(TINY.scenario, simulated.SETTINGS, TINY.attacks)
    expected = jax.jit(episodes.examples, static_argnames="world")(
        key, np.int32(0), np.int32(2), world=world
    )
    np.testing.assert_allclose(train.x[20:30], expected.x, rtol=1e-4)
    np.testing.assert_array_equal(train.label[20:30], expected.label)
    score = expected.score.reshape(10, -1)
    np.testing.assert_allclose(train.mos[20:30], score, atol=1e-3)
    # Services vary slowest: voice at all horizons, then video.
    np.testing.assert_array_equal(score[:, 5], expected.score[:, 1, 0])


def test_metadata_says_how_it_was_made(tiny):
    metadata = tiny.info.metadata
    assert metadata["seed"] == simulated.SEED
    assert metadata["rows"] == {"train": 240, "test": 60}
    assert metadata["settings"]["horizons"] == [0, 1, 3, 5, 10]
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
    with pytest.raises(DataError, match=r"no config 'huge'; it has small, standard, tiny, smart"):
        load.builder("simulated_iot/huge", tmp_path)


def test_configs_are_those_of_the_readme():
    text = pathlib.Path(simulated.__file__).with_name("README.md").read_text()
    each = simulated.SETTINGS.examples()
    for name, config in CONFIGS.items():
        if name.startswith("unseen_") and name != "unseen_capacity":
            name = "unseen_ATTACK"
        split = {k: len(p.sites) * len(p.numbers) * each for k, p in parts(config).items()}
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        shape = [str(config.sites), str(config.episodes)]
        assert cells[1:4] == [*shape, f"{split['train']:,} + {split['test']:,}"]


@pytest.mark.parametrize("name", CONFIGS)
def test_no_config_puts_an_episode_on_both_sides(name):
    train, test = parts(CONFIGS[name]).values()
    assert not set(train.numbers) & set(test.numbers)
    assert (set(train.sites) & set(test.sites) == set()) == (name == "unseen_capacity")


def test_unseen_capacity_is_beyond_that_of_training():
    train, test = parts(CONFIGS["unseen_capacity"]).values()
    assert train.scenario.capacity_mbps.high <= test.scenario.capacity_mbps.low
    assert train.scenario._replace(capacity_mbps=None) == test.scenario._replace(capacity_mbps=None)


@pytest.mark.parametrize("label", episodes.ALL_ATTACKS)
def test_unseen_attacks_are_not_in_training_and_alone_in_the_test(label):
    train, test = parts(CONFIGS[f"unseen_{mixes.LABELS[label]}"]).values()
    assert test.attacks == (label,)
    assert set(train.attacks) == set(episodes.ALL_ATTACKS) - {label}


def test_small_is_a_part_of_standard():
    small, standard = CONFIGS["small"], CONFIGS["standard"]
    assert small.sites <= standard.sites
    assert small.episodes <= standard.episodes
    assert small.scenario == standard.scenario


def test_tfds_knows_it_by_name():
    assert tfds.core.registered.imported_builder_cls("simulated_iot") is simulated.Builder
    assert next(iter(CONFIGS)) == simulated.Builder.DEFAULT_BUILDER_CONFIG_NAME
    assert mixes.LABELS[0] == "benign"


def test_recorded_rows_become_kinds_of_their_family():
    recorded, used = bootstrap.read(DUMMY)
    assert isinstance(recorded, attacks.Recording)
    assert [entry["path"] for entry in used] == ["Merged01.csv"]
    assert int(recorded.count[0]) == 0
    lines = (DUMMY / "Merged01.csv").read_text().splitlines()
    header = lines[0].split(",")
    family = {
        "".join(c for c in fine.casefold() if c.isalnum()): name
        for name, sources in mixes.FAMILIES.items()
        for fine in sources["ciciot2023"]
    }
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
    own = [
        r for r in rows
        if family.get("".join(c for c in r["Label"].casefold() if c.isalnum())) == "scan"
        and float(r["AVG"]) >= 1 and float(r["Rate"]) > 0
    ]  # fmt: skip
    at = mixes.LABELS.index("scan")
    first = int(recorded.start[at])
    assert int(recorded.count[at]) == len(own) > 1
    for i, row in enumerate(own):
        kind = mixes.Kind(*np.asarray(recorded.kinds[first + i]).tolist())
        assert kind.size == pytest.approx(float(row["AVG"]), rel=1e-5)
        assert kind.syn == pytest.approx(min(float(row["syn_flag_number"]), 1.0), rel=1e-5)
        rate = float(row["Rate"]) * float(row["AVG"])
        assert float(recorded.rate[first + i]) == pytest.approx(rate, rel=1e-4)


def test_bootstrap_wants_the_files_of_that_release(tmp_path):
    with pytest.raises(DataError, match=r"no manual_dir is given: put the Merged"):
        load.builder("simulated_iot/bootstrap", tmp_path)
    (tmp_path / "other").mkdir()
    shutil.copy(DUMMY.parent / "parts" / "part-00000.csv", tmp_path / "other" / "Merged01.csv")
    with pytest.raises(DataError, match="34class"):
        load.builder("simulated_iot/bootstrap", tmp_path, tmp_path / "other")


@pytest.mark.slow
@pytest.mark.real
def test_bootstrap_prepares_from_real_rows(real_data, tmp_path, monkeypatch):
    monkeypatch.setitem(CONFIGS, "bootstrap", CONFIGS["bootstrap"]._replace(sites=2, episodes=10))
    made = load.builder("simulated_iot/bootstrap", tmp_path, real_data / "ciciot2023" / "v2")
    spec, train = load.table(made, "train")
    assert train.x.shape == (160, 8, len(observe.FEATURES))
    assert np.isfinite(train.x).all()
    assert made.info.metadata["sources"][0]["rows"] > 1000
    assert spec.dataset == "simulated_iot/bootstrap"

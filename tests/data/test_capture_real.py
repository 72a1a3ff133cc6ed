"""Captures of the MQTT testbed: every class on both sides of the capture rounds."""

import tarfile

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

from qoejax.data import load
from qoejax.data.table import retained

pytestmark = pytest.mark.real

CLASSES = ("benign", "bruteforce", "c2", "flood", "mqtt_abuse", "scan", "slow_dos")


@pytest.fixture(scope="module")
def prepared(real_data, tmp_path_factory):
    archive = real_data / "mqtt_testbed" / "pcaps.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    folder = tmp_path_factory.mktemp("mqtt")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "pcaps", filter="data")
    return load.builder("pcap_folder/packets", folder / "data", folder / "pcaps")


def test_seven_classes_in_unseen_rounds(prepared):
    meta = prepared.info.metadata
    spec, train = load.table(prepared, "train")
    test = load.table(prepared, "test")[1]
    assert spec.label_names == CLASSES
    assert set(train.label) == set(test.label) == set(range(7))
    assert len(set(train.group)) == 6
    assert not set(train.group) & set(test.group)
    assert meta["warnings"] == []
    assert all("test_day1" in name or "incident" in name for name in meta["passed_over"])
    size = [c.name for c in spec.columns].index("packets")
    assert (np.concatenate([train.x, test.x])[:, :, size] == meta["windowing"]["size"]).all()
    assert len(retained(spec)) == len(spec.columns)


def test_windows_tell_the_classes_of_an_unseen_round(prepared):
    _, train = load.table(prepared, "train")
    test = load.table(prepared, "test")[1]
    forest = RandomForestClassifier(100, class_weight="balanced_subsample", random_state=0)
    forest.fit(train.x[:, -1], train.label)
    assert f1_score(test.label, forest.predict(test.x[:, -1]), average="macro") > 0.7

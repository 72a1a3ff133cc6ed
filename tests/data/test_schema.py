"""The schemas against the published description of each dataset."""

import csv
import gzip

import pytest

from qoejax.data import schema
from qoejax.data.errors import DataError
from qoejax.data.table import CATEGORICAL, NUMERIC, retained

ALL = [level for configs in schema.CONFIGS.values() for level in configs.values()]


@pytest.mark.parametrize("level", ALL, ids=lambda level: level.dataset)
def test_every_config_is_consistent(level):
    names = [c.name for c in level.schema.columns]
    assert len({schema.plain(n) for n in [*names, level.schema.label_column]}) == len(names) + 1
    assert {c.kind for c in level.schema.columns} <= {NUMERIC, CATEGORICAL}
    assert all(c.why for c in level.schema.columns)
    assert set(level.taxonomy.of.values()) == set(level.taxonomy.names)
    assert level.taxonomy.names[0] == level.taxonomy.benign
    assert level.schema.group in {"", *names}
    assert level.schema.clocks <= set(names)
    assert schema.find(level.dataset) is level
    table = schema.label_table(level)
    assert set(table.values()) == set(range(len(level.taxonomy.names)))
    assert len({schema.plain(f) for f in level.taxonomy.of}) == len(level.taxonomy.of)


@pytest.mark.parametrize(
    ("dataset", "columns", "leaky", "classes"),
    [
        ("ciciot2023/34class", 46, 7, 34),
        ("ciciot2023/merged_8class", 39, 6, 8),
        ("ton_iot/10class", 42, 10, 10),
        ("edge_iiotset/6class", 61, 31, 6),
        ("edge_iiotset/binary", 61, 31, 2),
    ],
)
def test_published_sizes(dataset, columns, leaky, classes):
    spec = schema.spec_of(schema.find(dataset))
    assert len(spec.columns) == columns
    assert sum(c.leaky for c in spec.columns) == leaky == columns - len(retained(spec))
    assert len(spec.label_names) == classes


def test_known_leaks_are_marked():
    def leaky(dataset):
        return {c.name for c in schema.find(dataset).schema.columns if c.leaky}

    assert {"IAT", "Number", "Weight", "Magnitue", "Radius", "Covariance", "Drate"} == leaky(
        "ciciot2023/34class"
    )
    assert {"Number", "ack_count", "Tot sum"} < leaky("ciciot2023/merged_34class")
    assert {"src_ip", "src_port", "dst_ip", "dst_port", "dns_query"} < leaky("ton_iot/10class")
    assert {"frame.time", "tcp.seq", "mqtt.topic", "dns.qry.name.len"} < leaky(
        "edge_iiotset/15class"
    )


def test_families_of_the_published_taxonomies():
    eight = schema.find("ciciot2023/8class").taxonomy.of
    assert eight["VulnerabilityScan"] == "Recon"
    assert eight["MITM-ArpSpoofing"] == "Spoofing"
    assert eight["Uploading_Attack"] == "Web"
    sizes = {n: sum(v == n for v in eight.values()) for n in set(eight.values())}
    assert (sizes["DDoS"], sizes["DoS"], sizes["Mirai"], sizes["Benign"]) == (12, 4, 3, 1)
    six = schema.find("edge_iiotset/6class").taxonomy.of
    assert (six["Password"], six["Port_Scanning"]) == ("Malware", "Information gathering")
    binary = schema.find("ton_iot/binary").taxonomy
    assert binary.of["normal"] == "Benign"
    assert sum(v == "Attack" for v in binary.of.values()) == 9


def test_labels_match_in_either_release_and_spelling():
    merged = schema.label_table(schema.find("ciciot2023/merged_34class"))
    names = schema.find("ciciot2023/merged_34class").taxonomy.names
    for spelling, fine in [
        ("BENIGN", "BenignTraffic"),
        ("DDOS-PSHACK_FLOOD", "DDoS-PSHACK_Flood"),
        ("Mirai-udpplain", "Mirai-udpplain"),
        (" mitm_arpspoofing ", "MITM-ArpSpoofing"),
    ]:
        assert names[merged[schema.plain(spelling)]] == fine
    edge = schema.label_table(schema.find("edge_iiotset/15class"))
    assert edge[schema.plain("OS_Fingerprinting")] == edge[schema.plain("Fingerprinting")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ciciot2023/12class", "no config '12class'; it has 34class"),
        ("nope", "'nope' has no raw files"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(DataError, match=message):
        schema.find(name)


@pytest.mark.real
@pytest.mark.parametrize(
    ("dataset", "path"),
    [
        ("ton_iot/10class", "ton_iot/Train_Test_Network.csv.gz"),
        ("ciciot2023/merged_34class", "ciciot2023/v2/Merged01.csv.gz"),
        ("edge_iiotset/15class", "edge_iiotset/MITM_attack.csv"),
    ],
)
def test_headers_of_real_files(real_data, dataset, path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(real_data / path, "rt", newline="") as f:
        header = next(csv.reader(f))
    level = schema.find(dataset)
    labels = {"label", "Label", "type", "Attack_label", "Attack_type"}
    assert [n for n in header if n not in labels] == [c.name for c in level.schema.columns]
    assert level.schema.label_column in header

"""The audit on real rows: known leaks are named unaided, columns that a model sees pass."""

import pytest

from qoejax.data import audit, schema, table
from qoejax.data.audit import rawcells
from qoejax.run import audit as audits

pytestmark = pytest.mark.real


def run(paths, name="", **kwargs):
    raw = rawcells.read(paths)
    if name:
        level = schema.find(name)
        default = table.retained(schema.spec_of(level))
        kwargs |= {"level": level, "label": level.schema.label_column, "default": default}
    return audit.audit_raw(raw, **kwargs)


def leaks(result, *scopes):
    return {(f.rule, f.column) for f in audit.leaks(result, *scopes)}


@pytest.mark.slow
def test_ton_iot_addresses_and_ports(real_data):
    result = run([real_data / "ton_iot/Train_Test_Network.csv.gz"], "ton_iot/10class")
    named = {c for rule, c in leaks(result, "other") if rule == "identity"}
    assert named >= {"src_ip", "dst_ip", "src_port", "dst_port"}
    assert ("label copy", "label") in leaks(result, "other")
    assert leaks(result, "default", "split") == set()
    assert result.scores.reference > 0.85
    assert result.best[1] < result.scores.reference - 0.15


@pytest.mark.slow
def test_ciciot2023_first_release_time_and_window(real_data):
    path = real_data / "ciciot2023/v1/part-00000-excerpt.csv.gz"
    result = run([path], "ciciot2023/34class_partial")
    assert leaks(result) == {
        ("window size", "Number"), ("single column", "IAT"), ("time", "IAT"),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("config", ["merged_34class", "merged_8class"])
def test_ciciot2023_second_release_window(real_data, config):
    result = run([real_data / "ciciot2023/v2/Merged01.csv.gz"], f"ciciot2023/{config}")
    assert leaks(result) == {("window size", "Number")}
    assert "grain of means" in {f.rule for f in result.findings}


def test_edge_iiotset_shift_and_spelling(real_data):
    folder = real_data / "edge_iiotset"
    mitm, scan = folder / "MITM_attack.csv", folder / "OS_Fingerprinting_attack.csv"
    name = "edge_iiotset/15class"
    alone = run([mitm], name)
    assert leaks(alone) == {("shifted", "frame.time")}
    (shift,) = audit.leaks(alone)
    assert shift.value == 1.0  # Every row.
    assert leaks(run([scan], name)) == set()
    both = run([mitm, scan], name)
    assert ("shifted", "frame.time") in leaks(both)
    assert {c for rule, c in leaks(both, "raw") if rule == "spelling"} >= {
        "tcp.srcport",
        "tcp.flags",
    }
    assert leaks(both, "default", "split") == set()
    sample = run([folder / "rows_from_ML-EdgeIIoT_sample.csv"], name)
    assert leaks(sample) == {("shifted", "frame.time")}


@pytest.mark.slow
def test_second_ratings_and_row_numbers_of_human_scores(real_data):
    poqemon = run([real_data / "qoe/poqemon.csv.gz"], target="MOS", group=["user_id"])
    feedback = {f"QoF_{a}" for a in ("begin", "shift", "audio", "video")}
    assert {c for rule, c in leaks(poqemon) if rule == "second rating"} == feedback
    vlc = run([real_data / "qoe/vlc.csv.gz"], target="MOS")
    assert leaks(vlc) == {("row number", "id")}
    p1203 = run([real_data / "qoe/p1203.csv.gz"], target="mos")
    assert leaks(p1203) == {("identity", "pvs_id")}
    gaming = run([real_data / "qoe/cloud_gaming.csv.gz"], target="QoE", group=["player"])
    assert leaks(gaming) == set()


@pytest.mark.parametrize("config", ["cloud_gaming", "poqemon", "vlc", "p1203"])
def test_what_a_model_of_human_scores_sees_has_no_leak(real_data, config):
    found = audits.of_files(
        [real_data / f"qoe/{config}.csv.gz"], dataset=f"human_qoe/{config}"
    )  # fmt: skip
    assert leaks(found, "default", "split", "raw") == set()
    assert found.scores.reference > 0.6

"""The summary of a capture's verdicts, and the whole path from captures to verdicts."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from configs import base, mqtt_testbed
from qoejax.data import load
from qoejax.qoe.decide import Costs
from qoejax.run import evaluate, model, predict, verdicts
from qoejax.run.errors import RunError
from qoejax.run.train import train
from tests.data import pcaps


def table(actions, sources):
    n = len(actions)
    return pa.table(
        {
            "start": [f"2023-11-14T22:13:{i:02d}.000000Z" for i in range(n)],
            "end": [f"2023-11-14T22:13:{i + 1:02d}.000000Z" for i in range(n)],
            "source": sources,
            "destination": ["192.0.2.1"] * n,
            "protocol": ["tcp/80"] * n,
            "class": ["benign" if a == "allow" else "scan" for a in actions],
            "probability": np.linspace(0.5, 0.9, n),
            "p_attack": np.linspace(0.1, 0.8, n),
            "action": actions,
        }
    )


def test_summary_names_sources_times_and_surest_windows():
    actions, sources = ["allow", "block", "block", "allow"], ["a", "b", "b", "a"]
    text = list(verdicts.lines(table(actions, sources)))
    assert text[0] == (
        "4 windows from 2023-11-14T22:13:00.000000Z to 2023-11-14T22:13:04.000000Z; "
        "2 call for an action"
    )
    assert text[1] == "  b: 2 scan; 2 to act on, first at 2023-11-14T22:13:01.000000Z"
    assert text[2] == "  a: 2 benign; 0 to act on"
    assert text[4] == text[7]
    assert text[4].split() == [
        "2023-11-14T22:13:01.000000Z",
        "b",
        ">",
        "192.0.2.1",
        "tcp/80",
        "scan",
        "0.63",
        "block",
    ]
    assert len(text) == 9


def test_summary_is_short_and_needs_times():
    long = table(["block"] * 50, [f"h{i}" for i in range(50)])
    text = list(verdicts.lines(long))
    assert len(text) == 1 + verdicts.SHOWN + 1 + 2 * (1 + verdicts.SHOWN)
    assert "  and 42 more sources" in text
    assert not list(verdicts.lines(long.drop_columns(["start"])))
    calm = list(verdicts.lines(table(["allow"] * 3, ["a"] * 3)))
    assert len(calm) == 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny model of made-up captures: rounds are the clients."""
    root = tmp_path_factory.mktemp("captures")
    folder = pcaps.write_folder(root / "pcaps")
    prepared = load.builder("pcap_folder/packets", root / "data", folder)
    c = base.get_config()
    c.data.update(name="pcap_folder/packets", dir=str(root / "data"), features=12)
    c.clients.update(partition="natural", count=2, min_size=1)
    c.model = {"net": "mlp", "width": 8, "depth": 1}
    c.fed.rounds = 3
    c.client.update(batch=16, lr=0.01)
    c.perf.update(client_axis="turn", rounds_per_dispatch=3)
    return train(c, root / "w"), root / "w", folder, prepared


def test_captures_train_federated_and_are_judged_on_unseen_rounds(run):
    summary, workdir, _, prepared = run
    assert summary["train_rows"] <= prepared.info.metadata["rows"]["train"]
    trained = model.load(workdir)
    result = evaluate.evaluate_model(trained, *evaluate.split_rows(trained))
    assert result.summary["macro_f1"] > 0.5
    assert result.summary["qome"] or result.summary["mos"]


def test_a_capture_gets_verdicts_with_times(run, tmp_path):
    _, workdir, folder, _ = run
    trained = model.load(workdir)
    seen = []
    source = folder / "round1__scan_02.pcap"
    out = predict.predict(trained, source, tmp_path / "v.csv", Costs(), seen.append)
    written = pyarrow.csv.read_csv(tmp_path / "v.csv")
    assert written.num_rows == out["rows"] == out["read"]["windows"] == 6
    assert written.column_names[:6] == [
        "start",
        "end",
        "source",
        "destination",
        "protocol",
        "class",
    ]
    assert next(iter(verdicts.lines(seen[0]))).startswith("6 windows from 2023-11-14T22:13:2")
    scored = [n for n in written.column_names if n.startswith(("mos_", "qome_"))]
    rated = trained.mos_mean > 0
    assert len(scored) == 3 * rated[: len(trained.spec.services)].sum()


def test_a_labelled_capture_is_scored_and_an_unlabelled_one_is_not(run, tmp_path):
    _, workdir, folder, _ = run
    trained = model.load(workdir)
    out = evaluate.evaluate_file(trained, folder / "round2__scan_02.pcap", "pcap_folder/packets")
    assert out["rows"] == 6
    (tmp_path / "some.pcap").write_bytes(pcaps.pcap(pcaps.scan(0)))
    with pytest.raises(RunError, match="no known label"):
        evaluate.evaluate_file(trained, tmp_path / "some.pcap", "pcap_folder/packets")
    (tmp_path / "broken.pcap").write_bytes(b"?")
    with pytest.raises(RunError, match="is no capture"):
        predict.predict(trained, tmp_path / "broken.pcap", tmp_path / "v.csv", Costs())


@pytest.mark.parametrize("variant", ["fedavg", "fedprox", "centralised", "local"])
def test_config_variants(variant):
    c = mqtt_testbed.get_config(variant)
    assert c.data.name == "pcap_folder/packets"
    assert c.clients.partition == "natural"

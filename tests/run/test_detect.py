"""Verdicts of captures as they come are those of ``predict``; all ends are survived."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow.parquet
import pytest

from configs import base
from qoejax.data import capture, framing, load
from qoejax.data.errors import DataError
from qoejax.qoe.decide import Costs
from qoejax.run import detect, export, model, predict, taps
from qoejax.run.errors import RunError
from qoejax.run.train import train
from tests.data import pcaps

NAMES = ("start", "end", "source", "destination", "protocol", "class", "action")


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A tiny model of windows of packets."""
    root = tmp_path_factory.mktemp("captures")
    load.builder("pcap_folder/packets", root / "data", pcaps.write_folder(root / "pcaps"))
    c = base.get_config()
    c.data.update(name="pcap_folder/packets", dir=str(root / "data"), features=12)
    c.clients.update(partition="natural", count=2, min_size=1)
    c.model = {"net": "mlp", "width": 8, "depth": 1}
    c.fed.rounds = 2
    c.client.update(batch=16, lr=0.01)
    c.perf.update(client_axis="turn", rounds_per_dispatch=2)
    train(c, root / "w")
    return model.load(root / "w")


@pytest.fixture(scope="module", params=capture.CONFIGS)
def trained(request, learned, tmp_path_factory):
    """(workdir, artefact's folder, its judge, a mixed capture) for each kind of window.

    Both have the same columns, so one model serves: what it says need not be right.
    """
    root = tmp_path_factory.mktemp(request.param)
    spec = capture.spec(request.param, learned.spec.label_names)
    model.save(root / "w/model", learned._replace(spec=spec))
    export.write(model.load(root / "w"), root / "artefact")
    path = root / "mixed.pcap"
    path.write_bytes(pcaps.pcap(MIXED))
    return root / "w", root / "artefact", detect.of_artefact(root / "artefact", Costs()), path


MIXED = sorted(pcaps.benign(5) + pcaps.scan(6, 1.7e9 + 4) + pcaps.flood(7, 1.7e9 + 15))


def verdicts(judge, tap, **options):
    rows = []
    return rows, detect.detect(judge, tap, rows.extend, **options)


def whole(path):
    return taps.file(path, False, lambda: False)


def assert_same(rows, others):
    """The same windows and verdicts, whatever their order."""
    assert len(rows) == len(others) > 5
    a, b = (
        sorted(some, key=lambda row: [str(row[name]) for name in NAMES]) for some in (rows, others)
    )
    for x, y in zip(a, b, strict=True):
        assert [str(x[name]) for name in NAMES] == [str(y[name]) for name in NAMES]
        for name in x.keys() - set(NAMES) - {"latency_s", "delay_s"}:
            assert x[name] == pytest.approx(y[name], abs=1e-4), name


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    """What ``predict`` says of the mixed capture."""
    workdir, _, _, path = trained
    target = tmp_path_factory.mktemp("predicted") / "v.parquet"
    predict.predict(model.load(workdir), path, target, Costs())
    return pyarrow.parquet.read_table(target).to_pylist()


def test_a_finished_capture_gets_the_verdicts_of_predict(trained, expected):
    workdir, _, judge, path = trained
    rows, summary = verdicts(judge, whole(path))
    assert_same(rows, expected)
    assert rows[0].keys() == expected[0].keys() | {"latency_s", "delay_s"}
    assert summary["windows"] == len(rows) == sum(summary["classes"].values())
    assert summary["packets"] == len(MIXED)
    assert "error" not in summary
    assert_same(verdicts(detect.of_run(workdir, Costs()), whole(path))[0], expected)


def test_a_capture_that_grows_gets_the_same_verdicts(trained, expected, tmp_path):
    _, _, judge, path = trained
    data, live = path.read_bytes(), tmp_path / "live.pcap"
    live.touch()
    ends = np.random.default_rng().integers(0, len(data), 12).tolist()
    done = threading.Event()

    def write():
        with open(live, "ab", buffering=0) as file:
            for start, stop in zip([0, *sorted(ends)], [*sorted(ends), len(data)], strict=True):
                file.write(data[start:stop])
                time.sleep(0.06)
        done.set()

    quiet = []  # a piece without bytes after the last byte was there

    def stop():
        return done.is_set() and len(quiet) > 2

    def watched(tap):
        for chunk in tap.chunks:
            quiet.extend([1] * (done.is_set() and not chunk))
            yield chunk

    writer = threading.Thread(target=write)
    writer.start()
    tap = taps.file(live, True, stop)
    rows, summary = verdicts(judge, tap._replace(chunks=watched(tap)))
    writer.join()
    assert_same(rows, expected)
    assert "error" not in summary


def test_what_waits_is_judged_when_nothing_comes(trained):
    """Most of the capture, then silence: all its windows are told before any other byte comes."""
    _, _, judge, path = trained
    rows, told = [], []

    def chunks():
        yield path.read_bytes()
        for _ in range(2):
            time.sleep(0.03)
            yield b""
        told.append(len(rows))

    summary = detect.detect(judge, taps.Tap("a", chunks()), rows.extend, idle_s=0.02)
    assert told == [len(rows)] == [summary["windows"]]
    size = judge.windowing.size
    if judge.windowing.unit == "packets":
        # All that came is told but for less than one window of it.
        assert len(MIXED) - len(rows) * size < size


def test_a_scan_is_told_while_others_talk(trained):
    """In windows of packets, conversations too short for one join the rest once they are silent."""
    judge = trained[2]
    if judge.windowing.unit != "packets":
        pytest.skip("windows of time end by themselves")
    packets = sorted(pcaps.scan(6) + pcaps.benign(1))
    pieces = [pcaps.pcap(packets)[:24]]
    pieces += [pcaps.pcap(packets[i : i + 20])[24:] for i in range(0, len(packets), 20)]
    rows, open_ = [], []

    def chunks():
        yield from pieces
        open_.append(len([r for r in rows if r["source"] == "several"]))

    detect.detect(judge, taps.Tap("a", chunks()), rows.extend, idle_s=5.0)
    assert open_[0] >= 6  # of 120 packets; told before the end


def test_damage_is_told_after_the_verdicts_before_it(trained):
    _, _, judge, path = trained
    data = bytearray(path.read_bytes())
    at = len(data) - 16 - len(MIXED[-1][1])
    cut, summary = verdicts(judge, taps.Tap("x.pcap", iter([bytes(data[:-3])])))
    assert summary["error"] == f"x.pcap: the last record is cut off, at byte {at}."
    data[at + 8 : at + 12] = b"\xff" * 4
    broken, summary = verdicts(judge, taps.Tap("x.pcap", iter([bytes(data)])))
    assert f"bytes, at byte {at}." in summary["error"]
    assert_same(cut, broken)
    assert summary["packets"] == len(MIXED) - 1
    # A capture that was stopped midway is no error.
    tap = taps.Tap("x.pcap", iter([bytes(data[: at + 4])]))
    assert "error" not in detect.detect(judge, tap, list, stopped=lambda: True)
    assert "is no capture" in verdicts(judge, taps.Tap("x.pcap", iter([b"a,b\n"] * 9)))[1]["error"]


@pytest.mark.parametrize("change", ["replaced", "cut short", "removed"])
def test_a_file_that_is_no_longer_the_same_is_an_error(tmp_path, change):
    path = tmp_path / "live.pcap"
    data = pcaps.pcap(MIXED[:50])
    path.write_bytes(data)
    tap = taps.file(path, True, lambda: False)
    assert next(tap.chunks) == data
    if change == "replaced":
        (tmp_path / "new").write_bytes(data)
        os.replace(tmp_path / "new", path)
    elif change == "removed":
        path.unlink()
    else:
        os.truncate(path, 30)
    with pytest.raises(DataError, match=rf"live\.pcap: was {change}.*after byte {len(data)} had"):
        list(tap.chunks)


def test_what_cannot_be_followed_is_refused(tmp_path, trained):
    with pytest.raises(RunError, match=r"gone\.pcap cannot be read"):
        taps.file(tmp_path / "gone.pcap", True, lambda: False)
    (tmp_path / "a.pcap.gz").touch()
    with pytest.raises(RunError, match="compressed"):
        taps.file(tmp_path / "a.pcap.gz", True, lambda: False)
    judge = trained[2]
    with pytest.raises(RunError, match="simulated_iot"):
        detect.Judge(judge.spec._replace(dataset="simulated_iot/tiny"), np.ones(3), dict, Costs())


def test_a_descriptor_is_read_to_its_end(trained, expected):
    _, _, judge, path = trained
    here, there = os.pipe()
    data = path.read_bytes()

    def write():
        for i in range(0, len(data), 5000):
            os.write(there, data[i : i + 5000])
        os.close(there)

    writer = threading.Thread(target=write)
    writer.start()
    rows, _ = verdicts(judge, taps.descriptor(here, "standard input", lambda: False))
    writer.join()
    os.close(here)
    assert_same(rows, expected)


def test_percentiles_are_within_a_hundredth():
    times, drawn = detect.Times(), np.exp(np.random.default_rng(0).normal(0, 3, 9999))
    assert times.percentiles() == {"p50": None, "p99": None}
    times.add(drawn[:5000])
    times.add(drawn[5000:])
    found = times.percentiles()
    for q in (50, 99):
        assert found[f"p{q}"] == pytest.approx(
            np.percentile(drawn, q, method="inverted_cdf"), rel=0.011
        )


@pytest.mark.skipif(
    not hasattr(socket, "AF_PACKET") or os.geteuid() != 0, reason="needs Linux and root"
)
def test_an_interface_is_listened_to():
    ends = []
    try:
        tap = taps.interface("lo", lambda: bool(ends))
    except RunError as e:
        pytest.skip(str(e))
    here, there = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    there.bind(("127.0.0.1", 0))
    found = []
    for frames in framing.follow(tap.name, tap.chunks):
        sent = [i for i in range(len(frames.start)) if frames.length[i] == 42 + 999]
        found += [(frames.time[i], frames.captured[i], frames.link[i]) for i in sent]
        if not found:
            here.sendto(bytes(999), there.getsockname())
        elif not len(frames.start):
            ends.append(1)
    for each in (here, there):
        each.close()
    assert found
    when, kept, link = found[0]
    assert abs(when - time.time()) < 60
    assert (kept, link) == (taps.SNAP, 1)
    assert tap.lost() >= 0


def test_interfaces_that_cannot_be_listened_to_are_named(monkeypatch):
    def refuse(*_):
        raise PermissionError

    with monkeypatch.context() as m:
        m.setattr(socket, "socket", refuse)
        with pytest.raises(RunError, match="CAP_NET_RAW"):
            taps.interface("lo", lambda: True)
    with monkeypatch.context() as m:
        m.delattr(socket, "AF_PACKET")
        with pytest.raises(RunError, match="needs Linux"):
            taps.interface("lo", lambda: True)
    if os.geteuid() == 0:
        with pytest.raises(RunError, match=r"nonesuch.*expected one of"):
            taps.interface("nonesuch", lambda: True)


WITHOUT_FLAX = """
import runpy, sys, atexit
atexit.register(lambda: print(sorted({n.partition('.')[0] for n in sys.modules}), file=sys.stderr))
sys.argv[0] = "detect"
runpy.run_module("experiments.detect", run_name="__main__")
"""


@pytest.mark.slow
def test_the_command_ends_cleanly_when_interrupted(trained):
    _, folder, _, path = trained
    command = [sys.executable, "-c", WITHOUT_FLAX, f"--artefact={folder}", "--input=-"]
    running = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    running.stdin.write(path.read_bytes()[:-3])
    running.stdin.flush()
    first = running.stdout.readline()  # the pipe stays open
    running.send_signal(2)
    rest = running.stdout.read().splitlines()
    assert running.wait(60) == 0
    modules = running.stderr.read().decode()
    assert "'jax'" in modules
    assert not any(f"'{name}'" in modules for name in ("flax", "optax", "orbax"))
    rows = [json.loads(line) for line in (first, *rest)]
    assert rows[-1]["windows"] == len(rows) - 1 > 5
    assert rows[-1]["packets"] == len(MIXED) - 1

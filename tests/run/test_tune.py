"""``config.perf`` by measurement: what is chosen, cached, recorded, and kept."""

import json
import logging

import jax
import pytest

from qoejax.run import build, cache, tune
from qoejax.run.errors import RunError
from qoejax.run.train import prepare, train

from .conftest import tiny_config

AUTO = {"client_axis": "auto", "rounds_per_dispatch": 0}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def timed(monkeypatch):
    """Pretends that each candidate is twice as fast as the one before; returns those timed."""
    calls = []

    def fake(engine, trial, end):
        calls.append(engine)
        return 9.0, 0.5 ** len(calls)

    monkeypatch.setattr(tune, "_time", fake)
    return calls


def manifest(workdir):
    return json.loads((workdir / "manifest.json").read_text())


@pytest.mark.slow
def test_a_run_measures_records_and_keeps_its_choice(data_dir, tmp_path, folder, timed, wired_run):
    workdir = tmp_path / "w"
    first = train(tiny_config(data_dir, perf=AUTO), workdir)
    record = manifest(workdir)["tuned"]
    assert record["source"] == "measured"
    assert record["choice"]["client_axis"] == "turn"  # the last of three
    assert manifest(workdir)["config"]["perf"]["client_axis"] == "auto"
    assert len(timed) == len(record["candidates"]) == 3
    assert first["params_sha256"] == wired_run[1]["params_sha256"]  # in turn, by its config
    # A resumed run asks neither the cache nor the clock.
    for path in (folder / "tuned").iterdir():
        path.write_text("{")
    again = train(tiny_config(data_dir, perf=AUTO), workdir, retune=True)
    assert again["params_sha256"] == first["params_sha256"]
    assert manifest(workdir)["tuned"] == record
    assert len(timed) == 3


def one_trial(share=1.0):
    """A trial that only ``measure`` with a patched ``_time`` can use."""
    return tune.Trial(lambda config: (config.perf, share), {}, None, 8, {})


def test_measuring_stops_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(tune, "_time", lambda perf, trial, end: (3.0, 2.0))
    config = tiny_config("", perf=AUTO | {"tune_seconds": 1e-9})
    options = tune.tuning.candidates("cpu", 2, 8)
    rows = tune.measure(config, one_trial(0.5), options)
    assert rows[0]["seconds"] == 4.0
    assert rows[0]["compile_seconds"] == 1.0
    assert all("over config.perf.tune_seconds" in row["note"] for row in rows[1:])


def test_what_does_not_fit_into_memory_is_passed_over(monkeypatch):
    def fake(perf, trial, end):
        if perf.chunk > 64:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return 3.0, 1.0 / perf.chunk

    monkeypatch.setattr(tune, "_time", fake)
    config = tiny_config("", perf=AUTO)
    options = tune.tuning.candidates("gpu", 1, 200)
    rows = tune.measure(config, one_trial(), options)
    assert [row["chunk"] for row in rows if row["seconds"] is not None] == [64, 32]
    with pytest.raises(RunError, match="no way to run the clients fits"):
        tune.measure(config, one_trial(), options[:2])


def test_only_perf_is_ever_chosen(data_dir, timed):
    """Neither the model's dtype nor anything else that results depend on."""
    seen = []

    def engine(config):
        seen.append(config)
        return type("Engine", (), {"size": 4}), 1.0

    trial = tune.Trial(engine, {}, one_row(), 8, {})
    config = tiny_config(data_dir, perf=AUTO)
    resolved, record = tune.resolve(config, lambda: trial)
    for other in (*seen, resolved):
        changed = other.to_dict()
        assert changed.pop("perf").keys() == config.perf.to_dict().keys()
        assert changed == {k: v for k, v in config.to_dict().items() if k != "perf"}
    assert record["choice"]["client_axis"] == resolved.perf.client_axis != "auto"
    assert tune.resolve(tiny_config(data_dir), lambda: trial) == (tiny_config(data_dir), None)


def one_row():
    return build.Examples(*(jax.numpy.ones((1, 1, 3)) for _ in build.Examples._fields))


@pytest.mark.parametrize("content", ["{", "[]", '{"candidates": []}', '{"candidates": [{"a": 1}]}'])
def test_a_damaged_cache_is_named_and_made_anew(folder, timed, caplog, content):
    trial = tune.Trial(lambda c: (type("E", (), {"size": 4}), 1.0), {}, one_row(), 8, {})
    config = tiny_config("", perf=AUTO)
    _, first = tune.resolve(config, lambda: trial)
    (path,) = (folder / "tuned").iterdir()
    path.write_text(content)
    with caplog.at_level(logging.WARNING, "qoejax"):
        _, again = tune.resolve(config, lambda: trial)
    assert str(path) in caplog.text
    assert again["source"] == "measured"
    assert again["choice"] == first["choice"]
    _, cached = tune.resolve(config, lambda: trial)
    assert cached["source"] == f"cache {path}"
    _, fresh = tune.resolve(config, lambda: trial, fresh=True)
    assert fresh["source"] == "measured"


def test_a_choice_for_other_devices_is_refused():
    record = {"devices": 3, "choice": {}}
    with pytest.raises(RunError, match=r"for 3 device\(s\), but 4 are there"):
        tune.resolve(tiny_config("", perf=AUTO), lambda: one_trial(), record)


def test_a_real_measurement(data_dir, tmp_path):
    """Of one candidate, since only the number of rounds is left to choose."""
    config = tiny_config(data_dir, client={"epochs": 4}, perf={"rounds_per_dispatch": 0})
    run = prepare(config, tmp_path)
    assert run.config.perf.client_axis == "turn"
    assert run.config.perf.rounds_per_dispatch == 2  # whatever a round takes, blocks end there
    (row,) = run.tuned["candidates"]
    assert row["seconds"] == run.tuned["round_seconds"] > 0
    assert row["compile_seconds"] > 0

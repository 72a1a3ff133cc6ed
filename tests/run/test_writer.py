import contextlib
import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qoejax.run.writer import MetricsWriter, read_rows


def row(number, loss=1.0):
    return {"round": number, "loss": loss, "wire": {"bytes_up": 10 * number}}


def test_resuming_forgets_later_rounds(tmp_path):
    with contextlib.closing(MetricsWriter(tmp_path, 0)) as w:
        for number in (1, 2, 3):
            w.write(row(number))
    with contextlib.closing(MetricsWriter(tmp_path, 1)) as w:
        w.write(row(2, loss=0.5))
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [(r["round"], r["loss"]) for r in rows] == [(1, 1.0), (2, 0.5)]


def test_a_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(row(1)) + "\n" + json.dumps(row(2))[:9])
    assert [r["round"] for r in read_rows(path)] == [1]
    with contextlib.closing(MetricsWriter(tmp_path, 1)) as w:
        w.write(row(2))
    assert [r["round"] for r in read_rows(path)] == [1, 2]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    with contextlib.closing(MetricsWriter(tmp_path, 0)) as w:
        w.write(row(1, loss=0.25))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.25)]
    assert [e.value for e in events.Scalars("wire/bytes_up")] == [10.0]

"""The shared view: quantities by definition, from made-up rows of each dataset."""

import numpy as np
import pytest

from qoejax.data import schema, table
from qoejax.data.errors import DataError
from qoejax.data.schema import shared_view
from qoejax.simulate import observe


def rows_of(name, columns=None, rows=6, seed=0):
    spec = schema.spec_of(schema.find(name))
    vocab = {c.name: ("", "tcp", "udp") for c in spec.columns if c.kind == table.CATEGORICAL}
    spec = spec._replace(vocab=vocab, columns=columns or spec.columns)
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, (rows, 1, len(spec.columns))).astype(np.float32)
    label = rng.integers(0, len(spec.label_names), rows)
    label[:2] = -1, spec.label_names.index(spec.benign)
    return spec, table.make_table(x, label)


def at(spec, rows, name):
    return rows.x[:, 0, [c.name for c in spec.columns].index(name)]


def test_a_connection_of_ton_iot():
    spec, rows = rows_of("ton_iot/10class")
    view, seen = shared_view.apply(spec, rows)
    duration, packets = (
        at(spec, rows, "duration"), at(spec, rows, "src_pkts") + at(spec, rows, "dst_pkts"),
    )  # fmt: skip
    size = at(spec, rows, "src_ip_bytes") + at(spec, rows, "dst_ip_bytes")
    for i in range(len(rows.label)):
        rate = packets[i] / duration[i] if duration[i] else 0
        assert at(view, seen, "packet_rate")[i] == pytest.approx(rate)
        assert at(view, seen, "size_mean")[i] == pytest.approx(
            size[i] / packets[i] if packets[i] else 0
        )
        assert at(view, seen, "udp_share")[i] == (at(spec, rows, "proto")[i] == 2)
        assert at(view, seen, "icmp_share")[i] == 0  # No such value in this vocabulary.
    assert view.label_names == ("Benign", "Attack")
    benign = spec.label_names.index(spec.benign)
    expected = np.where(rows.label < 0, -1, rows.label != benign)
    np.testing.assert_array_equal(seen.label, expected)
    flags = {f"{f}_share" for f in ("fin", "syn", "rst", "psh", "ack")}
    assert set(shared_view.lacking(spec)) == {"size_std"} | flags


def test_both_releases_of_ciciot2023_and_an_excerpt():
    for name in ("ciciot2023/34class", "ciciot2023/merged_34class"):
        spec, rows = rows_of(name)
        view, seen = shared_view.apply(spec, rows)
        assert shared_view.lacking(spec) == ()
        expected = at(spec, rows, "Rate") * at(spec, rows, "AVG")
        np.testing.assert_allclose(at(view, seen, "byte_rate"), expected)
        np.testing.assert_allclose(at(view, seen, "syn_share"), at(spec, rows, "syn_flag_number"))
    fewer = tuple(c for c in spec.columns if c.name != "AVG")
    spec, rows = rows_of(name, fewer)
    assert shared_view.lacking(spec) == ("byte_rate", "size_mean")
    view, _ = shared_view.apply(spec, rows)
    assert len(view.columns) == len(shared_view.COLUMNS) - 2


def test_the_simulator_gives_every_quantity_of_its_last_record():
    columns = tuple(table.Column(n, u, table.NUMERIC, False, w) for n, u, w in observe.FEATURES)
    spec = schema.spec_of(schema.find("ton_iot/10class"))._replace(
        dataset="simulated_iot/tiny", columns=columns, window=4
    )
    assert shared_view.lacking(spec) == ()
    x = np.random.default_rng(0).random((3, 4, len(columns))).astype(np.float32)
    view, seen = shared_view.apply(spec, table.make_table(x, np.zeros(3, int)))
    assert (view.window, seen.x.shape[1]) == (1, 1)
    np.testing.assert_array_equal(seen.x[:, 0, 0], x[:, -1, 0])


def test_a_model_takes_its_own_columns_or_says_what_lacks():
    ton, ton_rows = shared_view.apply(*rows_of("ton_iot/10class"))
    cic, cic_rows = shared_view.apply(*rows_of("ciciot2023/merged_34class"))
    everything = set(shared_view.COLUMNS)
    aligned = shared_view.align(ton, everything, cic, cic_rows)
    assert aligned.x.shape == (6, 1, len(ton.columns))
    np.testing.assert_array_equal(at(ton, aligned, "tcp_share"), at(cic, cic_rows, "tcp_share"))
    with pytest.raises(DataError, match=r"ton_iot/10class cannot give size_std, fin_share"):
        shared_view.align(cic, everything, ton, ton_rows)
    aligned = shared_view.align(cic, {"tcp_share", "packet_rate"}, ton, ton_rows)
    np.testing.assert_array_equal(at(cic, aligned, "tcp_share"), at(ton, ton_rows, "tcp_share"))
    assert not at(cic, aligned, "syn_share").any()
    with pytest.raises(DataError, match="edge_iiotset/15class has no shared view"):
        shared_view.apply(*rows_of("edge_iiotset/15class"))

"""Framing of pcap and pcapng: all forms alike, damage bounded and told."""

import gzip
import io
import struct

import dpkt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.data import framing
from qoejax.data.errors import DataError
from tests.data import pcaps

PACKETS = pcaps.benign(0, sessions=2)


def read(path, data):
    path.write_bytes(data)
    warnings = []
    return list(framing.read(path, warnings)), warnings


def frames_of(blocks):
    return [
        (float(t), bytes(f.data[s : s + n]))
        for f in blocks
        for t, s, n in zip(f.time, f.start, f.captured, strict=True)
    ]


def assert_packets(blocks, expected=PACKETS, tolerance=1e-6):
    found = frames_of(blocks)
    assert [frame for _, frame in found] == [frame for _, frame in expected]
    np.testing.assert_allclose([t for t, _ in found], [t for t, _ in expected], atol=tolerance)


def pcapng(packets, order="<", unit=None, offset=0):
    def block(kind, body):
        body += bytes(-len(body) % 4)
        size = len(body) + 12
        return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)

    options = b""
    if unit is not None:
        options += struct.pack(f"{order}HHB3x", 9, 1, unit)
    if offset:
        options += struct.pack(f"{order}HHq", 14, 8, offset)
    options += struct.pack(f"{order}HH", 0, 0) if options else b""
    out = block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))
    out += block(1, struct.pack(f"{order}HHI", 1, 0, 0) + options)
    ticks = {None: 1e6, 9: 1e9, 0x80 | 20: 2.0**20}[unit]
    for time, frame in packets:
        stamp = round((time - offset) * ticks)
        head = struct.pack(f"{order}IIIII", 0, stamp >> 32, stamp & 2**32 - 1, *[len(frame)] * 2)
        out += block(6, head + frame)
    return out + block(5, struct.pack(f"{order}III", 0, 0, 0))  # statistics: passed over


def swapped(data):
    """The capture as a machine of the other byte order writes it."""
    out = struct.pack(">IHHIIII", *struct.unpack("<IHHIIII", data[:24]))
    at = 24
    while at < len(data):
        head = struct.unpack("<IIII", data[at : at + 16])
        out += struct.pack(">IIII", *head) + data[at + 16 : at + 16 + head[2]]
        at += 16 + head[2]
    return out


FORMS = {
    "little": pcaps.pcap(PACKETS),
    "nano": pcaps.pcap(PACKETS, nano=True),
    "big": swapped(pcaps.pcap(PACKETS)),
    "ng": pcapng(PACKETS),
    "ng big": pcapng(PACKETS, ">", 9),
    "ng binary clock": pcapng(PACKETS, "<", 0x80 | 20),
    "ng offset": pcapng(PACKETS, "<", 9, 1_600_000_000),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block", [64, framing.BLOCK])
def test_every_form_gives_the_same_packets(tmp_path, monkeypatch, form, block):
    monkeypatch.setattr(framing, "BLOCK", block)
    blocks, warnings = read(tmp_path / "a.pcap", FORMS[form])
    assert_packets(blocks)
    assert not warnings
    blocks, warnings = read(tmp_path / "a.pcap.gz", gzip.compress(FORMS[form]))
    assert_packets(blocks)
    assert not warnings


def test_pcapng_agrees_with_dpkt():
    found = list(dpkt.pcapng.Reader(io.BytesIO(FORMS["ng"])))
    assert [frame for _, frame in found] == [frame for _, frame in PACKETS]


@pytest.mark.parametrize("form", ["little", "ng"])
@pytest.mark.parametrize("cut", [1, 9, 30])
def test_cut_off_captures_give_what_is_whole(tmp_path, form, cut):
    end = FORMS[form].rindex(PACKETS[-1][1]) + len(PACKETS[-1][1])
    blocks, warnings = read(tmp_path / "a.pcap", FORMS[form][: end - cut])
    assert_packets(blocks, PACKETS[:-1])
    assert warnings == ["the last record is cut off"]


@pytest.mark.parametrize("name", ["a.pcap.gz", "A.PCAP.GZ"])
def test_cut_off_compression_gives_what_is_whole(tmp_path, name):
    data = gzip.compress(FORMS["little"])
    blocks, warnings = read(tmp_path / name, data[:-8])  # without checksum and size
    assert_packets(blocks, PACKETS)
    assert len(warnings) == 1
    assert "compressed data break off" in warnings[0]
    blocks, warnings = read(tmp_path / name, data[: len(data) // 2])
    found = sum(len(f.time) for f in blocks)
    assert 0 < found < len(PACKETS)
    assert_packets(blocks, PACKETS[:found])
    assert "compressed data break off" in warnings[0]


def test_an_absurd_length_ends_the_capture(tmp_path):
    data = bytearray(FORMS["little"])
    at = 24 + sum(16 + len(frame) for _, frame in PACKETS[:5])
    data[at + 8 : at + 12] = b"\xff\xff\xff\x7f"
    blocks, warnings = read(tmp_path / "a.pcap", bytes(data))
    assert_packets(blocks, PACKETS[:5])
    assert warnings == [
        "a record says that it has 2147483647 bytes; the rest of the capture is left out"
    ]


def test_a_packet_of_no_interface_ends_the_capture(tmp_path):
    data = bytearray(FORMS["ng"])
    at = data.index(PACKETS[2][1]) - 20
    data[at : at + 4] = struct.pack("<I", 7)
    blocks, warnings = read(tmp_path / "a.pcapng", bytes(data))
    assert_packets(blocks, PACKETS[:2])
    assert "names interface 7 of 1" in warnings[0]


def test_an_empty_capture_has_no_packets(tmp_path):
    assert read(tmp_path / "a.pcap", FORMS["little"][:24]) == ([], [])


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"a,b\n1,2\n", b"\xd4\xc3\xb2\xa1"])
def test_what_is_no_capture_is_refused(tmp_path, data):
    with pytest.raises(DataError, match="is no capture"):
        read(tmp_path / "a.pcap", data)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.pcap: cannot be read"):
        list(framing.read(tmp_path / "gone.pcap", []))


@pytest.mark.parametrize("form", ["little", "ng"])
def test_pieces_give_the_same_frames_and_the_same_byte_of_damage(form):
    end = FORMS[form].rindex(PACKETS[-1][1])
    data, found = FORMS[form][:end], []
    for size in (7, 64, len(data)):
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        frames = framing.follow("a.pcap", pieces)
        given = [next(frames) for _ in pieces]
        assert_packets(given, PACKETS[:-1])
        with pytest.raises(framing.CutOff) as error:
            next(frames)
        found.append(str(error.value))
    at = end - {"little": 16, "ng": 28}[form]
    assert found == [f"a.pcap: the last record is cut off, at byte {at}."] * 3


def test_every_piece_gives_frames_though_they_be_none():
    data = FORMS["little"]
    first = len(PACKETS[0][1])
    pieces = [b"", data[:10], data[10:30], b"", data[30 : 40 + first], data[40 + first :]]
    found = list(framing.follow("a", pieces))
    assert [len(f.start) for f in found] == [0, 0, 0, 0, 1, len(PACKETS) - 1]
    assert_packets(found)


@given(st.binary(max_size=300), st.sampled_from(["little", "ng", "ng big"]), st.integers(0, 400))
def test_garbage_after_any_beginning_is_survived(tmp_path_factory, tail, form, keep):
    path = tmp_path_factory.getbasetemp() / "garbage.pcap"
    try:
        blocks, _ = read(path, FORMS[form][:keep] + tail)
    except DataError:
        return
    for f in blocks:
        assert (f.start + f.captured + framing.MARGIN <= len(f.data)).all()
        assert np.isfinite(f.time).all()

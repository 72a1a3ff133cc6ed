"""Decoding: equal to dpkt packet by packet, in every link layer, and for any bytes."""

import collections
import struct

import dpkt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.data import framing, packets
from tests.data import pcaps
from tests.reference import capture as reference


def frames(list_, link=1, captured=None):
    lengths = [len(f) for f in list_]
    start = np.cumsum([0, *lengths[:-1]])
    taken = np.minimum(lengths, captured or 10**6)
    data = np.frombuffer(b"".join(list_) + bytes(framing.MARGIN), np.uint8)
    as_int = [np.array(a, np.int64) for a in (start, taken, lengths)]
    times = np.arange(len(list_), dtype=float)
    return framing.Frames(data, *as_int, times, np.full(len(list_), link), times * 0)


def decode(list_, link=1, captured=None):
    return packets.decode(frames(list_, link, captured), collections.Counter())


def ip6(inner, proto, before=b""):
    first = before[:1] and 60
    head = struct.pack(">IHBB", 6 << 28, len(before) + len(inner), first or proto, 33)
    return head + bytes(15) + b"\1" + bytes(15) + b"\2" + before + inner


TCP6 = bytes(dpkt.tcp.TCP(sport=40_000, dport=443, flags=2, data=b""))
MIXED = [
    *(frame for _, frame in pcaps.benign(1, sessions=3)),
    *(frame for _, frame in pcaps.scan(2, hosts=5)),
    pcaps.arp(1, "192.0.2.1", "192.0.2.2"),
    pcaps.arp(2, "192.0.2.2", "192.0.2.1"),
    pcaps.ethernet(pcaps.ip("192.0.2.1", "192.0.2.2", dpkt.icmp.ICMP(type=8, data=b"1234"))),
    pcaps.ethernet(pcaps.ip("192.0.2.2", "192.0.2.1", dpkt.icmp.ICMP(type=0, data=b"1234"))),
    pcaps.ethernet(ip6(TCP6, 6), 0x86DD),
    pcaps.ethernet(b"\x42\x42\3" + bytes(40), 40),  # 802.3 with LLC
]


def test_every_packet_reads_as_dpkt_reads_it():
    found = decode(MIXED)
    for i, frame in enumerate(MIXED):
        expected = reference.decode(frame)
        assert {k: getattr(found, k)[i] for k in expected} == expected, i


@pytest.mark.parametrize(
    ("link", "wrap"),
    [
        (1, lambda ip: pcaps.ethernet(struct.pack(">HH", 5, 0x0800) + ip, 0x8100)),
        (1, lambda ip: pcaps.ethernet(struct.pack(">HHHH", 5, 0x8100, 6, 0x0800) + ip, 0x88A8)),
        (113, lambda ip: struct.pack(">HHH8sH", 0, 1, 6, b"\2" * 8, 0x0800) + ip),
        (276, lambda ip: struct.pack(">HHIHBB8s", 0x0800, 0, 1, 1, 0, 6, b"\2" * 8) + ip),
        (101, lambda ip: ip),
        (12, lambda ip: ip),
        (0, lambda ip: struct.pack("<I", 2) + ip),
        (108, lambda ip: struct.pack(">I", 2) + ip),
    ],
)
def test_other_link_layers_carry_the_same(link, wrap):
    inner = [frame[14:] for _, frame in pcaps.benign(1, sessions=2)]
    plain, other = (
        decode([pcaps.ethernet(ip) for ip in inner]),
        decode([wrap(ip) for ip in inner], link),
    )
    for name in packets.Packets._fields:
        if name != "length":
            np.testing.assert_array_equal(getattr(plain, name), getattr(other, name), name)


def test_ipv6_extension_headers_are_walked():
    options = bytes([6, 0]) + bytes(6)
    found = decode([pcaps.ethernet(ip6(TCP6, 6, options), 0x86DD)])
    assert (found.protocol[0], found.flags[0], found.server_port[0], found.ttl[0]) == (
        6,
        2,
        443,
        33,
    )
    piece = bytes([17, 0]) + struct.pack(">HI", 8 << 3, 1)  # a later fragment
    head = struct.pack(">IHBB", 6 << 28, 20, 44, 9) + bytes(32) + piece + bytes(12)
    found = decode([pcaps.ethernet(head, 0x86DD)])
    assert found.fragment[0]
    assert found.server_port[0] == 0


def test_later_fragments_have_no_ports():
    inner = pcaps.ip("192.0.2.1", "192.0.2.2", dpkt.udp.UDP(sport=9, dport=53), _flags_offset=1)
    made = bytearray(inner)
    made[6:8] = struct.pack(">H", 185)
    found = decode([pcaps.ethernet(bytes(made))])
    assert found.fragment[0]
    assert (found.protocol[0], found.server_port[0], found.payload[0]) == (17, 0, 0)


def test_flow_and_pair_are_alike_both_ways_and_differ_else():
    there = pcaps.tcp("192.0.2.1", 40_000, "192.0.2.2", 80, 16)
    back = pcaps.tcp("192.0.2.2", 80, "192.0.2.1", 40_000, 16)
    port = pcaps.tcp("192.0.2.1", 40_001, "192.0.2.2", 80, 16)
    host = pcaps.tcp("192.0.2.3", 40_000, "192.0.2.2", 80, 16)
    crossed = pcaps.tcp("192.0.2.1", 80, "192.0.2.2", 40_000, 16)
    found = decode([pcaps.ethernet(f) for f in (there, back, port, host, crossed)])
    assert found.flow[0] == found.flow[1]
    assert len(set(found.flow.tolist())) == 4
    assert found.pair[0] == found.pair[1] == found.pair[2] == found.pair[4] != found.pair[3]
    assert found.up.tolist() == [True, False, True, True, False]


def test_messages_are_known_by_their_bytes():
    def says(data, port=8080):
        return pcaps.ethernet(pcaps.tcp("192.0.2.1", 40_000, "192.0.2.2", port, 24, data))

    cases = {
        says(b"GET / HTTP/1.1\r\n"): (packets.READ, -1),
        says(b"POST /login HTTP/1.1\r\n"): (packets.WRITE, -1),
        says(b"HTTP/1.1 204 No"): (packets.FINE, -1),
        says(b"HTTP/1.1 401 No"): (packets.ERROR, -1),
        says(b"GETTING"): (0, -1),
        says(pcaps.publish(77), 1883): (3, 77),
        says(pcaps.publish(77, b"t" * 150), 1883): (3, 77),  # remaining length of two bytes
        says(pcaps.publish(77, qos=0), 1883): (3, -1),
        says(pcaps.puback(78), 1883): (4, 78),
        says(b"\xc0\0", 1883): (12, -1),
        says(b"\xc5\0", 1883): (0, -1),  # PINGREQ with flags: the middle of something else
    }
    found = decode(list(cases))
    assert list(zip(found.message.tolist(), found.ident.tolist(), strict=True)) == [*cases.values()]


def test_unknown_link_types_are_counted():
    skipped = collections.Counter()
    mixed = frames(MIXED)
    mixed = mixed._replace(link=np.where(np.arange(len(MIXED)) < 3, 147, 1))
    assert len(packets.decode(mixed, skipped).time) == len(MIXED) - 3
    assert skipped == {"link type 147": 3}


def test_short_captures_keep_their_wire_length():
    full, short = decode(MIXED), decode(MIXED, captured=60)
    np.testing.assert_array_equal(full.length, short.length)
    ported = (full.protocol == 6) | (full.protocol == 17)
    np.testing.assert_array_equal(full.payload[ported][:30], short.payload[ported][:30])


@given(st.lists(st.binary(max_size=120), min_size=1, max_size=8), st.sampled_from([*packets.LINKS]))
def test_any_bytes_decode(list_, link):
    found = decode(list_, link)
    assert (found.payload >= 0).all()
    assert (found.header >= 0).all()

"""Headers of many frames at once: link, network and transport layer, and a look at the payload.

NumPy only. Every step works on all frames of a block: bytes are gathered at computed places, which
a margin of zero bytes keeps inside the data, and what lies beyond a frame's captured bytes is
masked. Nothing here can fail on any bytes; frames that cannot be read are counted.
"""

import collections
from collections.abc import Callable
from typing import NamedTuple

import dpkt
import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8, UInt64

from qoejax.data.framing import Frames

TCP, UDP = dpkt.ip.IP_PROTO_TCP, dpkt.ip.IP_PROTO_UDP
ICMP, ICMP6, IGMP = dpkt.ip.IP_PROTO_ICMP, dpkt.ip.IP_PROTO_ICMP6, dpkt.ip.IP_PROTO_IGMP
ARP, OTHER = 254, 255
"""Values of ``protocol`` for what is not IP; 254 and 255 are set aside for such use (RFC 3692)."""

SYN, RST, ACK = dpkt.tcp.TH_SYN, dpkt.tcp.TH_RST, dpkt.tcp.TH_ACK

PORTS = {
    "http": (80,), "https": (443,), "dns": (53,), "telnet": (23,), "smtp": (25,), "ssh": (22,),
    "irc": (194, 6667), "dhcp": (67, 68), "mqtt": (1883,),
}  # fmt: skip
"""Registered ports of the applications; HTTP is also known by its text, at any port."""

APPS = ("", *PORTS)
HTTP, DNS, MQTT = (APPS.index(name) for name in ("http", "dns", "mqtt"))

READ, WRITE, FINE, ERROR = 16, 17, 18, 19
"""Values of ``message`` for HTTP: GET and the like, POST and the like, status below 400, others.
1 to 15 are the packet types of MQTT (OASIS MQTT 5.0, table 2-1); 0 is none of these."""

_METHODS = {b"GET ": READ, b"HEAD": READ, b"OPTI": READ, b"DELE": READ}
_METHODS |= {b"POST": WRITE, b"PUT ": WRITE, b"PATC": WRITE}
_MAPPED = np.uint64(0xFFFF00000000)  # an IPv4 address as an IPv6 one: ::ffff:a.b.c.d
_MAC = np.uint64(2**64 - 1)  # upper half of the "address" of a frame without IP
_EXTENSIONS = (0, 43, 60)
_ETHERTYPES = (0x0800, 0x86DD, 0x0806)


class Packets(NamedTuple):
    """n packets; addresses, ports and absolute times are for grouping and reports only.

    ``length`` is that of the frame and ``header`` that of the network and transport headers, in
    bytes. ``up`` is from client to server: the side that opens a TCP connection, asks by ARP or
    ICMP, or has the higher port, is the client. ``flow`` and ``pair`` are hashes of the two
    endpoints with and without ports, alike in both directions.
    """

    time: Float64[np.ndarray, " n"]
    length: Int64[np.ndarray, " n"]
    header: Int64[np.ndarray, " n"]
    payload: Int64[np.ndarray, " n"]
    protocol: UInt8[np.ndarray, " n"]
    ttl: UInt8[np.ndarray, " n"]
    flags: UInt8[np.ndarray, " n"]
    fragment: Bool[np.ndarray, " n"]
    tcp_window: Int64[np.ndarray, " n"]
    up: Bool[np.ndarray, " n"]
    app: UInt8[np.ndarray, " n"]
    message: UInt8[np.ndarray, " n"]
    ident: Int64[np.ndarray, " n"]  # of the DNS or MQTT message, -1 where it has none
    server_port: Int64[np.ndarray, " n"]
    flow: UInt64[np.ndarray, " n"]
    pair: UInt64[np.ndarray, " n"]
    client_high: UInt64[np.ndarray, " n"]
    client_low: UInt64[np.ndarray, " n"]
    server_high: UInt64[np.ndarray, " n"]
    server_low: UInt64[np.ndarray, " n"]
    place: Float64[np.ndarray, " n"]


class _View(NamedTuple):
    """Bytes of the frames; places beyond the data are drawn back to its last bytes, all zero."""

    data: UInt8[np.ndarray, " bytes"]

    def u8(self, at: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        return self.data[np.minimum(at, len(self.data) - 1)].astype(np.int64)

    def u16(self, at: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        return (self.u8(at) << 8) | self.u8(at + 1)

    def u32(self, at: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        return (self.u16(at) << 16) | self.u16(at + 2)

    def u64(self, at: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
        high, low = self.u32(at).astype(np.uint64), self.u32(at + 4).astype(np.uint64)
        return (high << np.uint64(32)) | low


class _Link(NamedTuple):
    """What a link layer carries: its EtherType, and where; places of MAC addresses, -1 if none."""

    kind: Int64[np.ndarray, " n"]
    network: Int64[np.ndarray, " n"]
    source: Int64[np.ndarray, " n"]
    target: Int64[np.ndarray, " n"]


class _Network(NamedTuple):
    protocol: Int64[np.ndarray, " n"]
    ttl: Int64[np.ndarray, " n"]
    transport: Int64[np.ndarray, " n"]  # where the transport header begins
    end: Int64[np.ndarray, " n"]  # where the datagram ends, on the wire
    first: Bool[np.ndarray, " n"]  # is not a later fragment
    fragment: Bool[np.ndarray, " n"]
    addresses: tuple[UInt64[np.ndarray, " n"], ...]  # source high, low, target high, low


def _ethernet(view: _View, start: Int64[np.ndarray, " n"]) -> _Link:
    """IEEE 802.3, with up to two VLAN tags (802.1Q, 802.1ad)."""
    kind, network = view.u16(start + 12), start + 14
    for _ in range(2):
        tagged = np.isin(kind, (0x8100, 0x88A8, 0x9100))
        kind = np.where(tagged, view.u16(network + 2), kind)
        network = network + 4 * tagged
    return _Link(kind, network, start + 6, start)


def _cooked(view: _View, start: Int64[np.ndarray, " n"]) -> _Link:
    return _Link(view.u16(start + 14), start + 16, start + 6, np.full_like(start, -1))


def _cooked2(view: _View, start: Int64[np.ndarray, " n"]) -> _Link:
    return _Link(view.u16(start), start + 20, start + 12, np.full_like(start, -1))


def _raw(view: _View, start: Int64[np.ndarray, " n"]) -> _Link:
    none = np.full_like(start, -1)
    version = view.u8(start) >> 4
    return _Link(np.select([version == 4, version == 6], _ETHERTYPES[:2], -1), start, none, none)


def _loopback(view: _View, start: Int64[np.ndarray, " n"]) -> _Link:
    """Four bytes of address family, in the byte order of some machine: IP tells itself apart."""
    return _raw(view, start + 4)


LINKS: dict[int, Callable[[_View, Int64[np.ndarray, " n"]], _Link]] = {
    dpkt.pcap.DLT_EN10MB: _ethernet,
    dpkt.pcap.DLT_LINUX_SLL: _cooked,
    dpkt.pcap.DLT_LINUX_SLL2: _cooked2,
    12: _raw, 14: _raw, 101: _raw, 228: _raw, 229: _raw,
    dpkt.pcap.DLT_NULL: _loopback,
    dpkt.pcap.DLT_LOOP: _loopback,
}  # fmt: skip
"""Link types that are understood, by number (https://www.tcpdump.org/linktypes.html)."""


def decode(frames: Frames, skipped: collections.Counter[str]) -> Packets:
    """The packets of the frames whose link type is known; the others are counted by reason."""
    kinds = set(np.unique(frames.link).tolist())
    for link in kinds - set(LINKS):
        skipped[f"link type {link}"] += int(np.count_nonzero(frames.link == link))
    if len(kinds) == 1 and kinds <= set(LINKS):
        return _decode(frames, LINKS[kinds.pop()])
    rows = [np.flatnonzero(frames.link == link) for link in sorted(kinds & set(LINKS))]
    parts = [_decode(_take(frames, r), LINKS[int(frames.link[r[0]])]) for r in rows]
    if not parts:
        return _decode(_take(frames, np.zeros(0, np.int64)), _ethernet)
    order = np.argsort(np.concatenate(rows), kind="stable")
    return Packets(*(np.concatenate(columns)[order] for columns in zip(*parts, strict=True)))


def _take(frames: Frames, rows: Int64[np.ndarray, " m"]) -> Frames:
    return Frames(frames.data, *(column[rows] for column in frames[1:]))


def _decode(frames: Frames, link_of: Callable[[_View, Int64[np.ndarray, " n"]], _Link]) -> Packets:
    view, end = _View(frames.data), frames.start + frames.captured
    link = link_of(view, frames.start)
    net = _network(view, link, end, frames.start + frames.length)
    whole = net.first & (net.transport + 8 <= end)
    tcp = (net.protocol == TCP) & whole & (net.transport + 20 <= end)
    udp = (net.protocol == UDP) & whole
    ported = tcp | udp
    source = np.where(ported, view.u16(net.transport), 0)
    target = np.where(ported, view.u16(net.transport + 2), 0)
    flags = np.where(tcp, view.u8(net.transport + 13), 0)
    size = np.select([tcp, udp], [(view.u8(net.transport + 12) >> 4) * 4, 8], 0)
    payload_at = net.transport + size
    payload = np.where(ported, np.maximum(net.end - payload_at, 0), 0)
    up = _upward(view, net, source, target, flags, tcp, link)
    app, message, ident = _application(view, tcp, udp, source, target, payload_at, payload, end)
    hosts = net.addresses
    ends = [mix(hosts[i] ^ mix(hosts[i + 1])) for i in (0, 2)]
    ports = [(source.astype(np.uint64)), (target.astype(np.uint64))]
    flow = mix(ends[0] + mix(ports[0])) + mix(ends[1] + mix(ports[1]))
    pair = mix(ends[0] + ends[1])
    return Packets(
        time=frames.time,
        length=frames.length,
        header=np.clip(payload_at - link.network, 0, 1024),
        payload=payload,
        protocol=net.protocol.astype(np.uint8),
        ttl=net.ttl.astype(np.uint8),
        flags=flags.astype(np.uint8),
        fragment=net.fragment,
        tcp_window=np.where(tcp, view.u16(net.transport + 14), 0),
        up=up,
        app=app,
        message=message,
        ident=ident,
        server_port=np.where(up, target, source),
        flow=mix(flow + net.protocol.astype(np.uint64)),
        pair=np.maximum(pair, np.uint64(1)),
        client_high=np.where(up, hosts[0], hosts[2]),
        client_low=np.where(up, hosts[1], hosts[3]),
        server_high=np.where(up, hosts[2], hosts[0]),
        server_low=np.where(up, hosts[3], hosts[1]),
        place=frames.place,
    )


def _network(
    view: _View, link: _Link, end: Int64[np.ndarray, " n"], wire: Int64[np.ndarray, " n"]
) -> _Network:
    """IPv4 (RFC 791), IPv6 with extension headers (RFC 8200), ARP (RFC 826) and others."""
    at = link.network
    version = view.u8(at) >> 4
    size = (view.u8(at) & 15) * 4
    v4 = (link.kind == 0x0800) & (version == 4) & (size >= 20) & (at + 20 <= end)
    v6 = (link.kind == 0x86DD) & (version == 6) & (at + 40 <= end)
    arp = (link.kind == 0x0806) & (at + 28 <= end)
    word = view.u16(at + 6)
    transport, protocol, later, piece = _extensions(view, at + 40, view.u8(at + 6), v6)
    total = np.where(v6, view.u16(at + 4) + 40, view.u16(at + 2))
    # Offloaded segments are captured with length 0: the frame then says how long they are.
    stop = np.where((v4 | v6) & (total > 40 * v6), np.minimum(at + total, wire), wire)
    mapped = v4 | arp
    macs = (view.u16(link.source).astype(np.uint64) << np.uint64(32)) | view.u32(
        link.source + 2
    ).astype(np.uint64)
    to = (view.u16(link.target).astype(np.uint64) << np.uint64(32)) | view.u32(
        link.target + 2
    ).astype(np.uint64)
    known = [v6, mapped]
    places = (
        (at + 8, at + 12, at + 14, link.source, macs),
        (at + 24, at + 16, at + 24, link.target, to),
    )
    hosts: list[UInt64[np.ndarray, " n"]] = []
    for six, four, asked, place, mac in places:
        address = view.u32(np.where(arp, asked, four)).astype(np.uint64) | _MAPPED
        hosts.append(np.select(known, [view.u64(six), np.uint64(0)], _MAC))
        hosts.append(np.select(known, [view.u64(six + 8), address], np.where(place < 0, 0, mac)))
    return _Network(
        protocol=np.select([v4, v6, arp], [view.u8(at + 9), protocol, ARP], OTHER),
        ttl=np.select([v4, v6], [view.u8(at + 8), view.u8(at + 7)], 0),
        transport=np.select([v4, v6, arp], [at + size, transport, at + 28], at),
        end=stop,
        first=np.where(v4, (word & 0x1FFF) == 0, v6 & ~later),
        fragment=np.where(v4, (word & 0x3FFF) != 0, v6 & piece),
        addresses=tuple(hosts),
    )


def _extensions(
    view: _View,
    at: Int64[np.ndarray, " n"],
    following: Int64[np.ndarray, " n"],
    v6: Bool[np.ndarray, " n"],
) -> tuple[Shaped[np.ndarray, " n"], ...]:
    """Transport place and protocol behind IPv6 extension headers; later fragment; any fragment."""
    later = piece = np.zeros(len(at), bool)
    for _ in range(4):
        split = v6 & (following == 44)
        long = v6 & np.isin(following, _EXTENSIONS)
        if not (split | long).any():
            break
        piece = piece | split
        later = later | (split & (view.u16(at + 2) >> 3 > 0))
        size = np.select([split, long], [8, (view.u8(at + 1) + 1) * 8], 0)
        following = np.where(split | long, view.u8(at), following)
        at = at + size
    return at, following, later, piece


def _upward(
    view: _View,
    net: _Network,
    source: Int64[np.ndarray, " n"],
    target: Int64[np.ndarray, " n"],
    flags: Int64[np.ndarray, " n"],
    tcp: Bool[np.ndarray, " n"],
    link: _Link,
) -> Bool[np.ndarray, " n"]:
    """Whether each packet goes from client to server, told by itself alone."""
    opening, accepting = (
        tcp & (flags & (SYN | ACK) == SYN),
        tcp & (flags & (SYN | ACK) == SYN | ACK),
    )
    kind = view.u8(net.transport)
    reply = ((net.protocol == ICMP) & (kind == 0)) | ((net.protocol == ICMP6) & (kind == 129))
    answer = (net.protocol == ARP) & (view.u16(link.network + 6) == 2)
    return opening | ~(accepting | reply | answer | (source < target))


_APP_OF_PORT = np.zeros(65536, np.uint8)
for _code, _ports in enumerate(PORTS.values(), 1):
    _APP_OF_PORT[list(_ports)] = _code

_STATUS = int.from_bytes(b"HTTP", "big")
_WORDS = {int.from_bytes(word, "big"): code for word, code in _METHODS.items()}
# Flags that each MQTT packet type must have (MQTT 5.0, section 2.1.3); PUBLISH may have any.
_MQTT_FLAGS = np.array([99, 0, 0, 16, 0, 0, 2, 0, 2, 0, 2, 0, 0, 0, 0, 0])


def _application(
    view: _View,
    tcp: Bool[np.ndarray, " n"],
    udp: Bool[np.ndarray, " n"],
    source: Int64[np.ndarray, " n"],
    target: Int64[np.ndarray, " n"],
    at: Int64[np.ndarray, " n"],
    payload: Int64[np.ndarray, " n"],
    end: Int64[np.ndarray, " n"],
) -> tuple[UInt8[np.ndarray, " n"], UInt8[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Application, message and message number; of several MQTT packets in a segment, the first."""
    app = np.maximum(_APP_OF_PORT[source], _APP_OF_PORT[target])
    message = np.zeros(len(app), np.uint8)
    ident = np.full(len(app), -1, np.int64)
    text = np.flatnonzero(tcp & (payload >= 4) & (at + 10 <= end))
    words = view.u32(at[text])
    for word, code in _WORDS.items():
        message[text[words == word]] = code
    answers = text[words == _STATUS]
    message[answers] = np.where(view.u8(at[answers] + 9) < ord("4"), FINE, ERROR)
    app[message >= READ] = HTTP
    m = np.flatnonzero(tcp & (app == MQTT) & (payload >= 2) & (at + 2 <= end))
    kind, bits = view.u8(at[m]) >> 4, view.u8(at[m]) & 15
    sound = (_MQTT_FLAGS[kind] == bits) | (kind == 3)
    message[m[sound]] = kind[sound]
    ident[m] = np.where(sound, _mqtt_ident(view, at[m], kind, bits, end[m]), -1)
    d = np.flatnonzero(udp & (app == DNS) & (payload >= 12) & (at + 4 <= end))
    ident[d] = view.u16(at[d]) | ((view.u8(at[d] + 2) >> 7) << 16)  # bit 16: is a response
    return app, message, ident


def _mqtt_ident(
    view: _View,
    at: Int64[np.ndarray, " m"],
    kind: Int64[np.ndarray, " m"],
    bits: Int64[np.ndarray, " m"],
    end: Int64[np.ndarray, " m"],
) -> Int64[np.ndarray, " m"]:
    """Packet identifier, -1 where there is none (or QoS 0, or beyond the captured bytes)."""
    here = at + 1
    for _ in range(3):  # the remaining length goes on while the top bit is set
        here = here + (view.u8(here) >> 7)
    here = here + 1
    publish = kind == 3
    here = np.where(publish, here + 2 + view.u16(here), here)
    numbered = (publish & (bits & 6 > 0)) | ((kind >= 4) & (kind <= 11))
    return np.where(numbered & (here + 2 <= end), view.u16(here), -1)


def mix(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Finaliser of splitmix64: a hash of 64-bit words (Steele, Lea and Flood, OOPSLA 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


_NO_ROWS = np.zeros(0, np.int64)
_NO_TIMES = np.zeros(0)
EMPTY = _decode(
    Frames(np.zeros(1, np.uint8), _NO_ROWS, _NO_ROWS, _NO_ROWS, _NO_TIMES, _NO_ROWS, _NO_TIMES),
    _ethernet,
)
"""No packets."""

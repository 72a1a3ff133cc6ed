"""Made-up captures, written with dpkt; nothing comes from a real one.

``python -m tests.data.pcaps`` rewrites the builder's dummy_data folder.
"""

import io
import pathlib
import struct

import dpkt
import numpy as np

from qoejax.data import schema

DUMMY = pathlib.Path(schema.__file__).parents[1] / "builders/pcap_folder/dummy_data"
SYN, SYN_ACK, ACK, PUSH, FIN, RST = 2, 18, 16, 24, 17, 4
CLIENT, SERVER, BROKER = "192.0.2.10", "192.0.2.1", "192.0.2.2"


def address(text):
    return bytes(int(part) for part in text.split("."))


def ip(source, target, inner, ttl=64, **kwargs):
    proto = {dpkt.tcp.TCP: 6, dpkt.udp.UDP: 17, dpkt.icmp.ICMP: 1}.get(type(inner), 59)
    made = dpkt.ip.IP(src=address(source), dst=address(target), p=proto, ttl=ttl, data=inner)
    for name, value in kwargs.items():
        setattr(made, name, value)
    made.len = len(made)
    return bytes(made)


def tcp(source, sport, target, dport, flags, data=b"", window=512, ttl=64):
    inner = dpkt.tcp.TCP(sport=sport, dport=dport, flags=flags, win=window, data=data)
    return ip(source, target, inner, ttl)


def udp(source, sport, target, dport, data=b""):
    inner = dpkt.udp.UDP(sport=sport, dport=dport, data=data, ulen=8 + len(data))
    return ip(source, target, inner)


def dns(number, response):
    return struct.pack(">HHHHHH", number, 0x8180 if response else 0x0100, 1, 0, 0, 0) + b"\0"


def publish(number, topic=b"a/b", qos=1):
    body = (
        struct.pack(">H", len(topic)) + topic + (struct.pack(">H", number) if qos else b"") + b"1"
    )
    size = [len(body) % 128 | 128, len(body) // 128] if len(body) > 127 else [len(body)]
    return bytes([0x30 | qos << 1, *size]) + body


def puback(number):
    return struct.pack(">BBH", 0x40, 2, number)


def ethernet(inner, kind=0x0800):
    return b"\2\0\0\0\0\1" + b"\2\0\0\0\0\2" + struct.pack(">H", kind) + inner


def arp(op, asker, asked):
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, op) + b"\2\0\0\0\0\1" + address(asker)
    return ethernet(body + b"\0" * 6 + address(asked), 0x0806)


def pcap(packets, link=1, nano=False, snaplen=262_144):
    """The bytes of a capture of (time, frame) pairs."""
    out = io.BytesIO()
    writer = dpkt.pcap.Writer(out, snaplen=snaplen, linktype=link, nano=nano)
    for time, frame in packets:
        writer.writepkt(frame, ts=time)
    return out.getvalue()


def session(rng, start, client, server, port, exchanges, pause=0.1, wait=0.02):
    """A TCP connection: handshake, requests and answers, end; (time, frame) pairs."""
    sport = int(rng.integers(32_768, 61_000))
    up = (client, sport, server, port)
    down = (server, port, client, sport)
    t, out = start, []

    def say(way, flags, data=b"", after=0.001):
        nonlocal t
        t += after
        out.append((t, ethernet(tcp(*way, flags, data))))

    say(up, SYN)
    say(down, SYN_ACK, after=wait)
    say(up, ACK)
    for i in range(exchanges):
        if port == 1883:
            say(up, PUSH, publish(i + 1), after=pause * rng.uniform(0.5, 1.5))
            say(down, PUSH, puback(i + 1), after=wait)
        else:
            say(up, PUSH, b"GET /%d HTTP/1.1\r\n\r\n" % i, after=pause * rng.uniform(0.5, 1.5))
            say(down, PUSH, b"HTTP/1.1 200 OK\r\n\r\n" + bytes(rng.integers(20, 200)), after=wait)
        say(up, ACK)
    say(up, FIN)
    say(down, FIN, after=wait)
    return out


def benign(seed, start=1.7e9, sessions=8):
    rng = np.random.default_rng(seed)
    out = []
    for i in range(sessions):
        port, server = ((80, SERVER), (1883, BROKER))[i % 2]
        out += session(rng, start + 3 * i, CLIENT, server, port, 6, wait=0.01 * (1 + i % 3))
        asked = start + 3 * i + 0.5
        out.append((asked, ethernet(udp(CLIENT, 40_000 + i, SERVER, 53, dns(i, False)))))
        out.append((asked + 0.03, ethernet(udp(SERVER, 53, CLIENT, 40_000 + i, dns(i, True)))))
    return sorted(out, key=lambda pair: pair[0])


def scan(seed, start=1.7e9, hosts=60):
    """One SYN and one refusal for each of many hosts: no conversation fills a window."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(hosts):
        sport, host, port = int(rng.integers(32_768, 61_000)), f"198.51.100.{i + 1}", 1 + 7 * i
        t = start + 0.02 * i
        out.append((t, ethernet(tcp(CLIENT, sport, host, port, SYN))))
        out.append((t + 0.001, ethernet(tcp(host, port, CLIENT, sport, RST | ACK))))
    return out


def flood(seed, start=1.7e9, packets=160):
    """From made-up addresses, one packet each."""
    rng = np.random.default_rng(seed)
    return [
        (
            start + 0.001 * i,
            ethernet(udp(f"203.0.113.{i % 250 + 1}", int(port), SERVER, 9, b"x" * 64)),
        )
        for i, port in enumerate(rng.integers(1024, 65_535, packets))
    ]


MAKERS = {"benign": benign, "scan": scan, "flood": flood}


def write_folder(folder, rounds=("round1", "round2", "round3")):
    """A small capture of every class in every round, named as the default rule wants it."""
    folder.mkdir(parents=True, exist_ok=True)
    for r, name in enumerate(rounds):
        for c, (label, make) in enumerate(MAKERS.items()):
            path = folder / f"{name}__{label}_{c + 1:02d}.pcap"
            path.write_bytes(pcap(make(10 * r + c, start=1.7e9 + 1000.0 * r)))
    return folder


if __name__ == "__main__":
    write_folder(DUMMY, ("round1", "round2"))

"""What the packets of devices, crowds, attacks and the voice probe look like: tables. Python only.

The values are this simulator's own: plausible, varied anew in every episode, measured nowhere.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """What the packets of one component look like: means over its packets.

    Bytes for sizes, hops for ``ttl``, shares in [0, 1] for flags and protocols.
    """

    size: float
    size_std: float
    header: float
    ttl: float
    fin: float = 0.0
    syn: float = 0.0
    rst: float = 0.0
    psh: float = 0.0
    ack: float = 0.0
    tcp: float = 0.0
    udp: float = 0.0
    icmp: float = 0.0
    arp: float = 0.0
    http: float = 0.0
    https: float = 0.0
    dns: float = 0.0
    telnet: float = 0.0
    ssh: float = 0.0


def _tcp(size: float, size_std: float, ttl: float, **shares: float) -> Kind:
    return Kind(size, size_std, 32.0, ttl, tcp=1.0, **shares)


class Device(NamedTuple):
    """A benign component: its packets, its usual share of bytes, how it wanders.

    ``sigma`` is the standard deviation of its log level, ``tau_s`` the time its level remembers.
    """

    kind: Kind
    share: float
    sigma: float
    tau_s: float


DEVICES: dict[str, Device] = {
    "camera": Device(
        Kind(880.0, 380.0, 20.0, 64.0, psh=0.02, ack=0.08, tcp=0.1, udp=0.9), 0.37, 0.25, 12.0
    ),
    "sensor": Device(
        _tcp(150.0, 80.0, 64.0, fin=0.012, syn=0.02, rst=0.008, psh=0.42, ack=0.97),
        0.066,
        0.35,
        15.0,
    ),
    "media": Device(
        _tcp(1050.0, 520.0, 54.0, fin=0.006, syn=0.012, rst=0.004, psh=0.16, ack=0.99, https=0.94),
        0.33,
        0.40,
        6.0,
    ),
    "update": Device(
        _tcp(1240.0, 430.0, 52.0, fin=0.003, syn=0.006, rst=0.003, psh=0.08, ack=0.99, http=0.55),
        0.18,
        0.60,
        8.0,
    ),
    "polling": Device(
        _tcp(170.0, 110.0, 60.0, fin=0.05, syn=0.07, rst=0.02, psh=0.38, ack=0.93, http=0.85),
        0.03,
        0.50,
        1.5,
    ),
    "admin": Device(
        _tcp(
            160.0, 100.0, 62.0, fin=0.03, syn=0.05, rst=0.012, psh=0.45, ack=0.95,
            http=0.1, telnet=0.2, ssh=0.6,
        ),
        0.012,
        0.60,
        1.5,
    ),
    "discovery": Device(
        Kind(
            95.0, 45.0, 16.0, 60.0, syn=0.10, rst=0.05, ack=0.06,
            tcp=0.16, udp=0.46, icmp=0.12, arp=0.26, dns=0.30,
        ),
        0.012,
        0.60,
        1.5,
    ),
}  # fmt: skip
"""Benign components of a site. The last three are what the quiet attacks hide among."""

CROWD = _tcp(
    330.0, 390.0, 54.0, fin=0.10, syn=0.14, rst=0.02, psh=0.26, ack=0.87, http=0.55, https=0.4
)
"""A flash crowd: many short, genuine web sessions; an HTTP flood looks much the same."""

VOICE = Kind(200.0, 0.0, 20.0, 60.0, udp=1.0)
VOICE_RATE = 50.0
"""Packets a second of the voice probe: 20 ms of G.711 with its headers in 200 bytes."""


class Attack(NamedTuple):
    """An attack class: three ways to do it, and its intensity as a share of the capacity."""

    kinds: tuple[Kind, Kind, Kind]
    low: float
    high: float


ATTACKS: dict[str, Attack] = {
    "ddos": Attack(
        (
            _tcp(62.0, 12.0, 58.0, syn=0.93, rst=0.02, ack=0.06),
            Kind(420.0, 260.0, 20.0, 60.0, udp=0.98, icmp=0.02, dns=0.12),
            _tcp(
                250.0, 320.0, 56.0, fin=0.09, syn=0.19, rst=0.04, psh=0.24, ack=0.82,
                http=0.7, https=0.22,
            ),
        ),
        0.1,
        3.0,
    ),
    "slow_dos": Attack(
        (
            _tcp(90.0, 45.0, 58.0, fin=0.02, syn=0.20, rst=0.02, psh=0.42, ack=0.80, http=0.95),
            _tcp(74.0, 25.0, 58.0, fin=0.01, syn=0.10, rst=0.02, psh=0.10, ack=0.90, http=0.95),
            _tcp(130.0, 70.0, 58.0, fin=0.02, syn=0.15, rst=0.03, psh=0.60, ack=0.84, http=0.90),
        ),
        0.035,
        0.14,
    ),
    "scan": Attack(
        (
            _tcp(60.0, 8.0, 52.0, syn=0.56, rst=0.40, ack=0.42, http=0.02, telnet=0.02, ssh=0.02),
            Kind(72.0, 30.0, 12.0, 54.0, udp=0.66, icmp=0.34, dns=0.05),
            Kind(64.0, 16.0, 12.0, 58.0, syn=0.12, rst=0.1, tcp=0.2, icmp=0.4, arp=0.4),
        ),
        0.01,
        0.08,
    ),
    "brute_force": Attack(
        (
            _tcp(140.0, 90.0, 56.0, fin=0.09, syn=0.10, rst=0.03, psh=0.40, ack=0.90, ssh=0.98),
            _tcp(84.0, 30.0, 56.0, fin=0.08, syn=0.11, rst=0.04, psh=0.46, ack=0.89, telnet=0.98),
            _tcp(260.0, 200.0, 56.0, fin=0.11, syn=0.12, rst=0.03, psh=0.34, ack=0.88, http=0.97),
        ),
        0.025,
        0.12,
    ),
}  # fmt: skip
"""Attack classes in label order, after benign. Only the flood is meant to hurt a conversation."""

LABELS = ("benign", *ATTACKS)

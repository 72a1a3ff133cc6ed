"""What the packets of devices, crowds, attacks and probes look like: tables. Python only.

The values are this simulator's own: plausible, varied anew in every episode, measured nowhere.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """What the packets of one component look like: means over its packets.

    Bytes for sizes, hops for ``ttl``, shares in [0, 1] for flags and protocols. Later fragments of
    a packet carry no transport header: transports may sum to less than 1.
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
    """A benign component: its packets, and how its level wanders.

    ``sigma`` is the standard deviation of its log level, ``tau_s`` the time its level remembers.
    How much of a site's traffic it makes is in ``scenarios``.
    """

    kind: Kind
    sigma: float
    tau_s: float


DEVICES: dict[str, Device] = {
    "camera": Device(
        Kind(880.0, 380.0, 20.0, 64.0, psh=0.02, ack=0.08, tcp=0.1, udp=0.9), 0.25, 12.0
    ),
    "sensor": Device(
        _tcp(150.0, 80.0, 64.0, fin=0.012, syn=0.02, rst=0.008, psh=0.42, ack=0.97), 0.35, 15.0
    ),
    "media": Device(
        _tcp(1050.0, 520.0, 54.0, fin=0.006, syn=0.012, rst=0.004, psh=0.16, ack=0.99, https=0.94),
        0.40,
        6.0,
    ),
    "update": Device(
        _tcp(1240.0, 430.0, 52.0, fin=0.003, syn=0.006, rst=0.003, psh=0.08, ack=0.99, http=0.55),
        0.60,
        8.0,
    ),
    "polling": Device(
        _tcp(170.0, 110.0, 60.0, fin=0.05, syn=0.07, rst=0.02, psh=0.38, ack=0.93, http=0.85),
        0.50,
        1.5,
    ),
    "admin": Device(
        _tcp(
            160.0, 100.0, 62.0, fin=0.03, syn=0.05, rst=0.012, psh=0.45, ack=0.95,
            http=0.1, telnet=0.2, ssh=0.6,
        ),
        0.60,
        1.5,
    ),
    "discovery": Device(
        Kind(
            95.0, 45.0, 16.0, 60.0, syn=0.10, rst=0.05, ack=0.06,
            tcp=0.16, udp=0.46, icmp=0.12, arp=0.26, dns=0.30,
        ),
        0.60,
        1.5,
    ),
}  # fmt: skip
"""Benign components of a site. The last three are what the quiet attacks hide among."""

CROWD = _tcp(
    330.0, 390.0, 54.0, fin=0.10, syn=0.14, rst=0.02, psh=0.26, ack=0.87, http=0.55, https=0.4
)
"""A flash crowd: many short, genuine web sessions; an HTTP flood looks much the same."""


class Attack(NamedTuple):
    """An attack family.

    Attributes:
        kinds: ways to carry it out.
        low: least intensity, as a share of the capacity.
        high: greatest intensity.
        pulses: share of its attacks that go on and off.
        weight: how often it occurs, against the others.
    """

    kinds: tuple[Kind, Kind, Kind, Kind]
    low: float
    high: float
    pulses: float
    weight: int = 1


ATTACKS: dict[str, Attack] = {
    "flood": Attack(
        (
            _tcp(62.0, 12.0, 58.0, syn=0.93, rst=0.02, ack=0.06),
            Kind(420.0, 260.0, 20.0, 60.0, udp=0.98, icmp=0.02, dns=0.12),
            Kind(84.0, 50.0, 8.0, 60.0, icmp=0.97, udp=0.03),
            _tcp(
                250.0, 320.0, 56.0, fin=0.09, syn=0.19, rst=0.04, psh=0.24, ack=0.82,
                http=0.7, https=0.22,
            ),
        ),
        0.1, 4.0, 0.6, 3,
    ),
    "fragmentation": Attack(
        (
            Kind(920.0, 580.0, 12.0, 62.0, ack=0.48, tcp=0.5),
            Kind(920.0, 580.0, 6.0, 62.0, udp=0.5),
            Kind(920.0, 580.0, 4.0, 62.0, icmp=0.95),
            Kind(520.0, 240.0, 8.0, 62.0, udp=0.36),
        ),
        0.1, 4.0, 0.6, 2,
    ),
    "slow": Attack(
        (
            _tcp(90.0, 45.0, 58.0, fin=0.02, syn=0.20, rst=0.02, psh=0.42, ack=0.80, http=0.95),
            _tcp(74.0, 25.0, 58.0, fin=0.01, syn=0.10, rst=0.02, psh=0.10, ack=0.90, http=0.95),
            _tcp(130.0, 70.0, 58.0, fin=0.02, syn=0.15, rst=0.03, psh=0.60, ack=0.84, http=0.90),
            _tcp(110.0, 60.0, 58.0, fin=0.01, syn=0.16, rst=0.02, psh=0.30, ack=0.86, https=0.95),
        ),
        0.035, 0.14, 0.2,
    ),
    "scan": Attack(
        (
            _tcp(60.0, 8.0, 52.0, syn=0.56, rst=0.40, ack=0.42, http=0.02, telnet=0.02, ssh=0.02),
            Kind(72.0, 30.0, 12.0, 54.0, udp=0.66, icmp=0.34, dns=0.05),
            Kind(64.0, 16.0, 12.0, 58.0, syn=0.12, rst=0.1, tcp=0.2, icmp=0.4, arp=0.4),
            _tcp(
                120.0, 90.0, 54.0, fin=0.10, syn=0.30, rst=0.24, psh=0.14, ack=0.62,
                http=0.35, https=0.1, telnet=0.05, ssh=0.1,
            ),
        ),
        0.01, 0.08, 0.2,
    ),
    "brute_force": Attack(
        (
            _tcp(140.0, 90.0, 56.0, fin=0.09, syn=0.10, rst=0.03, psh=0.40, ack=0.90, ssh=0.98),
            _tcp(84.0, 30.0, 56.0, fin=0.08, syn=0.11, rst=0.04, psh=0.46, ack=0.89, telnet=0.98),
            _tcp(230.0, 160.0, 56.0, fin=0.13, syn=0.14, rst=0.03, psh=0.30, ack=0.86, http=0.97),
            _tcp(100.0, 40.0, 60.0, fin=0.11, syn=0.13, rst=0.07, psh=0.38, ack=0.86),
        ),
        0.02, 0.12, 0.1,
    ),
    "web": Attack(
        (
            _tcp(560.0, 420.0, 56.0, fin=0.03, syn=0.04, rst=0.02, psh=0.52, ack=0.96, http=0.98),
            _tcp(400.0, 380.0, 58.0, fin=0.04, syn=0.05, rst=0.02, psh=0.58, ack=0.95, http=0.97),
            _tcp(1280.0, 420.0, 58.0, fin=0.01, syn=0.01, rst=0.01, psh=0.40, ack=0.99, http=0.97),
            _tcp(480.0, 400.0, 54.0, fin=0.03, syn=0.04, rst=0.03, psh=0.55, ack=0.96, https=0.97),
        ),
        0.1, 0.3, 0.2,
    ),
    "spoofing": Attack(
        (
            Kind(60.0, 6.0, 8.0, 64.0, arp=1.0),
            Kind(110.0, 60.0, 10.0, 64.0, udp=0.4, arp=0.6, dns=0.38),
            Kind(130.0, 50.0, 18.0, 62.0, udp=1.0, dns=0.97),
            Kind(84.0, 30.0, 10.0, 64.0, icmp=0.45, arp=0.55),
        ),
        0.006, 0.05, 0.2,
    ),
    "botnet": Attack(
        (
            _tcp(105.0, 50.0, 46.0, fin=0.01, syn=0.02, rst=0.01, psh=0.80, ack=0.97),
            _tcp(70.0, 16.0, 48.0, fin=0.02, syn=0.62, rst=0.12, psh=0.10, ack=0.30, telnet=0.9),
            Kind(230.0, 60.0, 20.0, 50.0, udp=1.0, dns=0.96),
            _tcp(900.0, 560.0, 46.0, fin=0.01, syn=0.01, rst=0.01, psh=0.75, ack=0.98, https=0.3),
        ),
        0.02, 0.12, 0.7,
    ),
}  # fmt: skip
"""Attack families in label order, after benign. Floods and fragmentation are meant to hurt a
conversation where they are strong; the others are harmless to it, nearly always."""

LABELS = ("benign", *ATTACKS)

WAYS = 4
"""Ways to carry out an attack; one episode mixes them, mostly one."""

FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "benign": {
        "ciciot2023": ("BenignTraffic",),
        "ton_iot": ("normal",),
        "edge_iiotset": ("Normal",),
    },
    "flood": {
        "ciciot2023": (
            "DDoS-RSTFINFlood", "DDoS-PSHACK_Flood", "DDoS-SYN_Flood", "DDoS-UDP_Flood",
            "DDoS-TCP_Flood", "DDoS-ICMP_Flood", "DDoS-SynonymousIP_Flood", "DDoS-HTTP_Flood",
            "DoS-UDP_Flood", "DoS-SYN_Flood", "DoS-TCP_Flood", "DoS-HTTP_Flood",
            "Mirai-greeth_flood", "Mirai-greip_flood", "Mirai-udpplain",
        ),
        "ton_iot": ("ddos", "dos"),
        "edge_iiotset": ("DDoS_UDP", "DDoS_ICMP", "DDoS_TCP", "DDoS_HTTP"),
    },
    "fragmentation": {
        "ciciot2023": ("DDoS-ACK_Fragmentation", "DDoS-UDP_Fragmentation",
                       "DDoS-ICMP_Fragmentation"),
    },
    "slow": {"ciciot2023": ("DDoS-SlowLoris",)},
    "scan": {
        "ciciot2023": ("Recon-HostDiscovery", "Recon-OSScan", "Recon-PortScan", "Recon-PingSweep",
                       "VulnerabilityScan"),
        "ton_iot": ("scanning",),
        "edge_iiotset": ("Vulnerability_scanner", "Port_Scanning", "Fingerprinting"),
    },
    "brute_force": {
        "ciciot2023": ("DictionaryBruteForce",),
        "ton_iot": ("password",),
        "edge_iiotset": ("Password",),
    },
    "web": {
        "ciciot2023": ("BrowserHijacking", "CommandInjection", "SqlInjection", "XSS",
                       "Uploading_Attack"),
        "ton_iot": ("injection", "xss"),
        "edge_iiotset": ("SQL_injection", "XSS", "Uploading"),
    },
    "spoofing": {
        "ciciot2023": ("DNS_Spoofing", "MITM-ArpSpoofing"),
        "ton_iot": ("mitm",),
        "edge_iiotset": ("MITM",),
    },
    "botnet": {
        "ciciot2023": ("Backdoor_Malware",),
        "ton_iot": ("backdoor", "ransomware"),
        "edge_iiotset": ("Backdoor", "Ransomware"),
    },
}  # fmt: skip
"""Which fine labels of the recorded datasets each label stands for. Botnet means what malware does
apart from flooding: beacons, commands, spreading, exfiltration."""

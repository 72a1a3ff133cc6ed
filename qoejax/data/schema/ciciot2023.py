"""CICIoT2023: two releases of one traffic collection, with different columns.

Neto et al., "CICIoT2023: A Real-Time Dataset and Benchmark for Large-Scale Attacks in IoT
Environment", Sensors 23(13):5941, 2023, doi 10.3390/s23135941. A row describes a window of 100
packets where the class is DDoS, DoS or Mirai, and of 10 packets where it is anything else: every
column that grows with the window tells the label.
"""

from qoejax.data.schema.base import Schema, fine_and_binary, levels, number, taxonomy

FAMILIES = {
    "Benign": ("BenignTraffic",),
    "DDoS": (
        "DDoS-RSTFINFlood",
        "DDoS-PSHACK_Flood",
        "DDoS-SYN_Flood",
        "DDoS-UDP_Flood",
        "DDoS-TCP_Flood",
        "DDoS-ICMP_Flood",
        "DDoS-SynonymousIP_Flood",
        "DDoS-HTTP_Flood",
        "DDoS-SlowLoris",
        "DDoS-ACK_Fragmentation",
        "DDoS-UDP_Fragmentation",
        "DDoS-ICMP_Fragmentation",
    ),
    "DoS": ("DoS-UDP_Flood", "DoS-SYN_Flood", "DoS-TCP_Flood", "DoS-HTTP_Flood"),
    "Mirai": ("Mirai-greeth_flood", "Mirai-greip_flood", "Mirai-udpplain"),
    "Spoofing": ("DNS_Spoofing", "MITM-ArpSpoofing"),
    "Recon": (
        "Recon-HostDiscovery",
        "Recon-OSScan",
        "Recon-PortScan",
        "Recon-PingSweep",
        "VulnerabilityScan",
    ),
    "Web": (
        "BrowserHijacking",
        "CommandInjection",
        "SqlInjection",
        "XSS",
        "Backdoor_Malware",
        "Uploading_Attack",
    ),
    "BruteForce": ("DictionaryBruteForce",),
}

_FINE, _BINARY = fine_and_binary([f for fines in FAMILIES.values() for f in fines], "BenignTraffic")
_TAXONOMIES = {"34class": _FINE, "8class": taxonomy(FAMILIES, "Benign"), "binary": _BINARY}
_ALIASES = {"Benign": "BenignTraffic"}

_WINDOW = "grows with the window: 100 packets for floods, 10 for all else"
_FLAGS = tuple(
    number(f"{flag}_flag_number", why=f"share of packets with the {flag.upper()} flag")
    for flag in ("fin", "syn", "rst", "psh", "ack", "ece", "cwr")
)
_SERVICES = ("HTTP", "HTTPS", "DNS", "Telnet", "SMTP", "SSH", "IRC")


def _share(*names: str) -> tuple:
    return tuple(number(name, why=f"share of packets that carry {name}") for name in names)


_HEADER_LENGTH = number("Header_Length", "bytes", "length of the packet headers")
_PROTOCOL = number("Protocol Type", why="IP protocol number, averaged over the window")
_RATE = number("Rate", "packets/s", "packets per second of the window")
_SIZES = (
    number("Min", "bytes", "smallest packet"),
    number("Max", "bytes", "largest packet"),
    number("AVG", "bytes", "mean packet size"),
    number("Std", "bytes", "standard deviation of the packet size"),
    number("Tot size", "bytes", "packet size"),
)

PARTS_COLUMNS = (
    number("flow_duration", "s", "time between packets of the flow"),
    _HEADER_LENGTH,
    _PROTOCOL,
    number("Duration", why="the IP time to live, whatever its name says"),
    _RATE,
    number("Srate", "packets/s", "rate of outbound packets"),
    number("Drate", "packets/s", "constant but for a few rows of single captures", leaky=True),
    *_FLAGS,
    number("ack_count", why="counts FIN flags, whatever its name says"),
    number("syn_count", why="counts SYN flags"),
    number("fin_count", why="counts RST flags, whatever its name says"),
    number("urg_count", why="counts PSH flags, whatever its name says"),
    number("rst_count", why="counts ACK flags, whatever its name says"),
    *_share(*_SERVICES, "TCP", "UDP", "DHCP", "ARP", "ICMP", "IPv", "LLC"),
    number("Tot sum", "bytes", "running sum of packet sizes, averaged over the window"),
    *_SIZES,
    number("IAT", "s", "holds the capture's absolute time: each class has its date", leaky=True),
    number("Number", why=_WINDOW, leaky=True),
    number("Magnitue", why="square root of sums of window means: " + _WINDOW, leaky=True),
    number("Radius", why="computed from window variances: " + _WINDOW, leaky=True),
    number("Covariance", why="computed from window variances: " + _WINDOW, leaky=True),
    number("Variance", why="ratio of variances of packet sizes"),
    number("Weight", why="product of packet numbers: " + _WINDOW, leaky=True),
)

_MULTIPLE = "is {} times Number: with it, " + _WINDOW

MERGED_COLUMNS = (
    _HEADER_LENGTH,
    _PROTOCOL,
    number("Time_To_Live", why="IP time to live, mean of the window"),
    _RATE,
    *_FLAGS,
    *(
        number(f"{f}_count", why=_MULTIPLE.format(f"{f}_flag_number"), leaky=True)
        for f in ("ack", "syn", "fin", "rst")
    ),
    *_share(*_SERVICES, "TCP", "UDP", "DHCP", "ARP", "ICMP", "IGMP", "IPv", "LLC"),
    number("Tot sum", "bytes", _MULTIPLE.format("AVG"), leaky=True),
    *_SIZES,
    number("IAT", "s", "mean time between packets, about 1/Rate"),
    number("Number", why="packets in the window: " + _WINDOW, leaky=True),
    number("Variance", "bytes^2", "variance of the packet size"),
)

_ONLY_PARTS = ("flow_duration", "Duration", "Srate", "Drate", "urg_count", "Magnitue", "Radius")
_ONLY_MERGED = ("Time_To_Live", "IGMP")

PARTS = Schema(
    title="the first release of CICIoT2023 (part-*.csv, 46 features)",
    columns=PARTS_COLUMNS,
    label_column="label",
    taxonomies=_TAXONOMIES,
    aliases=_ALIASES,
    group="",
    absent_is_zero=False,
    clocks=frozenset(),
    patterns=("part-*",),
    foreign=dict.fromkeys(_ONLY_MERGED, "merged_34class"),
    instructions="put the part-*.csv (or .csv.gz) files of CICIoT2023 into manual_dir",
)

MERGED = PARTS._replace(
    title="the second release of CICIoT2023 (Merged*.csv, 39 features)",
    columns=MERGED_COLUMNS,
    label_column="Label",
    patterns=("merged*",),
    foreign=dict.fromkeys(_ONLY_PARTS, "34class"),
    instructions="put the Merged*.csv (or .csv.gz) files of CICIoT2023 into manual_dir",
)

CONFIGS = levels("ciciot2023", PARTS, partial=True) | levels(
    "ciciot2023", MERGED, prefix="merged_", partial=True
)

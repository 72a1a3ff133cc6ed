"""TON_IoT as a time series: bins of the full network records, and what is forecast from them.

The full, processed network records (Network_dataset_1.csv to _23.csv, 46 columns) carry ``ts``, the
second in which a connection began; Train_Test_Network.csv does not. Connection states are those of
Zeek's conn.log. Standard library only.
"""

from typing import NamedTuple

from qoejax.data.schema.base import Level, category, number
from qoejax.data.schema.ton_iot import NETWORK, TYPES
from qoejax.data.table import Column, Service, Spec


class Windows(NamedTuple):
    """One config: a record is a bin of ``bin_s`` seconds, an example ``length`` bins in a row.

    ``horizon_s`` is how far ahead, and over how long, scores reach; a multiple of ``bin_s``.
    """

    bin_s: int
    length: int
    horizon_s: int

    @property
    def ahead(self) -> int:
        """The horizon in bins."""
        return self.horizon_s // self.bin_s


CONFIGS: dict[str, Windows] = {"windows": Windows(10, 8, 60), "windows_60s": Windows(60, 8, 300)}
"""By the name of the dataset's config."""


class Transaction(NamedTuple):
    """A kind of connection whose duration is a response time.

    ``service`` is Zeek's name and ``port`` the destination port, "" for any. A response of
    ``worst_s`` or more rates 1, of ``worst_s / BEST_RATIO`` or less 5.
    """

    service: str
    port: str
    worst_s: float

    @property
    def best_s(self) -> float:
        """Response time that rates 5."""
        return self.worst_s / BEST_RATIO


BEST_RATIO = 50.0
TRANSACTIONS = (Transaction("dns", "53", 1.0), Transaction("http", "", 6.0))
"""DNS on port 53 alone: questions to a multicast group (mDNS, LLMNR) are not meant to be answered
by all. The times are this project's choice, like ``BEST_RATIO``; 6 s is the fast context of
ITU-T G.1030."""

LEAST = 5
"""Benign transactions in a horizon below which its score is masked."""

DONE = "SF"
FAILED = ("S0", "REJ", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH")
"""Unanswered, refused or reset. The other states (still open, or only half of it seen) say nothing
about the response and do not count."""

PROTOCOLS = ("tcp", "udp", "icmp")
SERVICES = ("dns", "http", "ssl", "ftp")
STATES = (DONE, *FAILED, "S1", "S2", "S3", "SHR", "OTH")

SUMS = (
    "duration",
    "src_bytes",
    "dst_bytes",
    "missed_bytes",
    "src_pkts",
    "src_ip_bytes",
    "dst_pkts",
    "dst_ip_bytes",
)
"""Numeric columns of the records, in the order in which bins hold their sums."""

DISTINCT = ("src_ip", "dst_ip", "dst_port")
"""Columns of the records whose distinct values are counted."""

RECORDS = NETWORK._replace(
    title=(
        "the full network records of TON_IoT (Network_dataset_*.csv; Train_Test_Network.csv has "
        "no ts and is for ton_iot/10class)"
    ),
    columns=(
        category("ts", "second of the first packet, since 1970, UTC", leaky=True),
        *(category(name, "host or port", leaky=True) for name in DISTINCT),
        *(category(name, "kind of connection") for name in ("proto", "service", "conn_state")),
        *(number(name, why="summed over a bin") for name in SUMS),
    ),
    taxonomies={"windows": NETWORK.taxonomies["10class"]},
    group="",
    patterns=("network_dataset_*",),
    instructions="put Network_dataset_1.csv to Network_dataset_23.csv of TON_IoT into manual_dir",
)


def _share(name: str, values: tuple[str, ...], what: str) -> tuple[Column, ...]:
    return tuple(number(f"{name}_{v}", why=f"share of records whose {what} is {v}") for v in values)


OUTCOME_COLUMNS = (
    number("duration", "s", "mean duration"),
    number("longest", "s", "longest duration"),
    *_share("state", STATES, "state"),
    *(number(f"{t.service}_failed", why="share of its transactions") for t in TRANSACTIONS),
    *(number(f"{t.service}_wait", "s", "geometric mean response") for t in TRANSACTIONS),
)
"""Columns that come from durations and states, of benign connections too: what is forecast, as it
was until now. An ablation drops them."""

COLUMNS = (
    number("records", "1/s", "connections that ended"),
    *(number(name, "1/s", "rate") for name in SUMS[1:]),
    number("packet_size", "bytes", "mean IP packet"),
    *_share("proto", PROTOCOLS, "protocol"),
    *_share("service", SERVICES, "application protocol"),
    *(number(f"distinct_{name}", why="distinct values, estimated") for name in DISTINCT),
    number("dst_entropy", "bit", "entropy of the destination hosts, in 64 hashed classes"),
    *OUTCOME_COLUMNS,
)


def level(config: str) -> Level:
    """How the records behind a config are read."""
    return Level(f"ton_iot/{config}", RECORDS, RECORDS.taxonomies["windows"], "", False)


def spec(config: str) -> Spec:
    """What the windows of a config hold: each service's score now and at the horizon."""
    made = CONFIGS[config]
    return Spec(
        dataset=f"ton_iot/{config}",
        columns=COLUMNS,
        label_names=TYPES,
        services=tuple(
            Service(t.service, horizon) for horizon in (0, made.horizon_s) for t in TRANSACTIONS
        ),
        vocab={},
        benign=TYPES[0],
        window=made.length,
    )

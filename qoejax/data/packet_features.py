"""What a window of packets is like: the features that a model sees. NumPy only.

The set of CICIoT2023 (Neto et al., Sensors 23(13):5941, 2023), put right: flags are counted as
they are set, the time to live has its own name, the time of day is not in it. With it go
directions, gaps between packets, and how many endpoints a window has. Counts are shares of the
window's packets.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped, UInt64

from qoejax.data import packets as p
from qoejax.data.packets import Packets
from qoejax.data.table import NUMERIC, Column

_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")
_PROTOCOLS = {"tcp": (p.TCP,), "udp": (p.UDP,), "icmp": (p.ICMP, p.ICMP6), "igmp": (p.IGMP,)}
_PROTOCOLS |= {"arp": (p.ARP,), "llc": (p.OTHER,)}
_MESSAGES = {
    "mqtt_connect": (1,), "mqtt_connack": (2,), "mqtt_publish": (3,),
    "mqtt_acknowledge": (4, 5, 6, 7),
    "mqtt_subscribe": (8, 9, 10, 11), "mqtt_ping": (12, 13), "mqtt_disconnect": (14,),
    "http_read": (p.READ,), "http_write": (p.WRITE,), "http_fine": (p.FINE,),
    "http_error": (p.ERROR,),
}  # fmt: skip

FEATURES: tuple[tuple[str, str, str], ...] = (
    ("packets", "", "packets in the window; constant where windows are counted in packets"),
    ("duration", "s", "from the first packet to the last"),
    ("rate", "packets/s", "packets over the duration, or over the window of time"),
    ("byte_rate", "bytes/s", "bytes over the same"),
    ("header_length", "bytes", "mean of network and transport headers"),
    ("time_to_live", "", "mean IP time to live"),
    ("time_to_live_std", "", "its standard deviation"),
    *((f"{name}_flag", "", f"share of packets with the flag {name.upper()}") for name in _FLAGS),
    ("syn_only", "", "share of packets that open a TCP connection"),
    ("syn_ack", "", "share of packets that accept one"),
    *((name, "", f"share of {name.upper()} packets") for name in _PROTOCOLS),
    ("fragments", "", "share of IP fragments"),
    *((name, "", f"share of packets of {name.upper()}, by registered port") for name in p.PORTS),
    *((name, "", "share of packets that begin with such a message") for name in _MESSAGES),
    ("size_min", "bytes", "smallest frame"),
    ("size_max", "bytes", "largest frame"),
    ("size_mean", "bytes", "mean frame"),
    ("size_std", "bytes", "standard deviation of frames"),
    ("payload_mean", "bytes", "mean payload of TCP or UDP"),
    ("payload_std", "bytes", "its standard deviation"),
    ("payload_max", "bytes", "largest payload"),
    ("payload_none", "", "share of packets without payload"),
    ("payload_up", "bytes", "mean payload of the packets from client to server that have any"),
    ("payload_down", "bytes", "the same from server to client"),
    ("gap_min", "s", "shortest time between packets"),
    ("gap_max", "s", "longest"),
    ("gap_mean", "s", "mean"),
    ("gap_std", "s", "standard deviation"),
    ("gap_log", "", "mean of log10 of the time between packets in microseconds, at least 0"),
    ("up", "", "share of packets from client to server"),
    ("up_bytes", "", "share of bytes from client to server"),
    ("turns", "", "share of packets that go the other way than the one before"),
    ("flows", "", "different pairs of endpoints (hosts and ports), a packet"),
    ("server_ports", "", "different ports of servers, a packet"),
    ("pairs", "", "different pairs of hosts, a packet"),
    ("tcp_window", "bytes", "mean TCP receive window, unscaled"),
    ("tcp_window_none", "", "share of TCP packets with a window of 0"),
)  # fmt: skip
"""Name, unit and meaning of each feature. Nothing tells an address, a port or the time of day."""

COLUMNS = tuple(Column(name, unit, NUMERIC, False, why) for name, unit, why in FEATURES)

_LEAST_S = 1e-6  # a duration below the clock's step counts as that


def features(
    packets: Packets, starts: Int64[np.ndarray, " w"], seconds: float = 0.0
) -> Float32[np.ndarray, "w F"]:
    """Features of windows of consecutive packets, in the order of ``FEATURES``.

    Args:
      packets: those of the first window, of the second, and so on; each window in order of time.
      starts: row of each window's first packet; the first is 0, none is empty.
      seconds: length of a window of time; 0 where a window lasts from its first packet to its last.
    """
    w = _Windows(packets, starts)
    values = _volume(w, seconds) | _headers(w) | _sizes(w) | _gaps(w) | _sides(w)
    return np.stack([values[name] for name, _, _ in FEATURES], 1).astype(np.float32)


class _Windows:
    """Sums, means and extremes over windows."""

    def __init__(self, packets: Packets, starts: Int64[np.ndarray, " w"]):
        self.packets, self.starts = packets, starts
        self.n = np.diff(np.r_[starts, len(packets.time)])
        self.of = np.repeat(np.arange(len(starts)), self.n)

    def total(self, values: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, " w"]:
        return np.add.reduceat(values.astype(np.float64), self.starts)

    def mean(self, values: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, " w"]:
        return self.total(values) / self.n

    def std(self, values: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, " w"]:
        return np.sqrt(self.mean((values - self.mean(values)[self.of]) ** 2))

    def low(self, values: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " w"]:
        return np.minimum.reduceat(values, self.starts)

    def high(self, values: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " w"]:
        return np.maximum.reduceat(values, self.starts)

    def ratio(
        self, values: Shaped[np.ndarray, " n"], weights: Shaped[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " w"]:
        """Weighted mean, 0 where nothing has weight."""
        weight = self.total(weights)
        return self.total(values * weights) / np.where(weight > 0, weight, 1.0)

    def distinct(self, values: UInt64[np.ndarray, " n"]) -> Float64[np.ndarray, " w"]:
        """Different values, a packet."""
        keys = p.mix(values ^ p.mix(self.of.astype(np.uint64)))
        _, rows = np.unique(keys, return_index=True)
        return np.bincount(self.of[rows], minlength=len(self.n)) / self.n


Values = dict[str, Shaped[np.ndarray, " w"]]


def _volume(w: _Windows, seconds: float) -> Values:
    duration = w.high(w.packets.time) - w.low(w.packets.time)
    span = np.full(len(w.n), seconds) if seconds else np.maximum(duration, _LEAST_S)
    return {
        "packets": w.n,
        "duration": duration,
        "rate": w.n / span,
        "byte_rate": w.total(w.packets.length) / span,
    }


def _headers(w: _Windows) -> Values:
    k = w.packets
    values = {
        "header_length": w.mean(k.header),
        "time_to_live": w.mean(k.ttl),
        "time_to_live_std": w.std(k.ttl),
        "syn_only": w.mean(k.flags & (p.SYN | p.ACK) == p.SYN),
        "syn_ack": w.mean(k.flags & (p.SYN | p.ACK) == p.SYN | p.ACK),
        "fragments": w.mean(k.fragment),
        "tcp_window": w.ratio(k.tcp_window, k.protocol == p.TCP),
        "tcp_window_none": w.ratio(k.tcp_window == 0, k.protocol == p.TCP),
    }
    values |= {f"{name}_flag": w.mean(k.flags >> i & 1) for i, name in enumerate(_FLAGS)}
    values |= {name: w.mean(np.isin(k.protocol, codes)) for name, codes in _PROTOCOLS.items()}
    values |= {name: w.mean(k.app == p.APPS.index(name)) for name in p.PORTS}
    return values | {name: w.mean(np.isin(k.message, codes)) for name, codes in _MESSAGES.items()}


def _sizes(w: _Windows) -> Values:
    k = w.packets
    some = k.payload > 0
    return {
        "size_min": w.low(k.length),
        "size_max": w.high(k.length),
        "size_mean": w.mean(k.length),
        "size_std": w.std(k.length),
        "payload_mean": w.mean(k.payload),
        "payload_std": w.std(k.payload),
        "payload_max": w.high(k.payload),
        "payload_none": w.mean(~some),
        "payload_up": w.ratio(k.payload, k.up & some),
        "payload_down": w.ratio(k.payload, ~k.up & some),
    }


def _gaps(w: _Windows) -> Values:
    gap = np.maximum(np.diff(w.packets.time, prepend=w.packets.time[0]), 0.0)
    later = np.ones(len(gap), bool)
    later[w.starts] = False  # a window's first packet has no gap within it
    mean = w.ratio(gap, later)
    return {
        "gap_min": np.where(w.n > 1, w.low(np.where(later, gap, np.inf)), 0.0),
        "gap_max": w.high(gap * later),
        "gap_mean": mean,
        "gap_std": np.sqrt(w.ratio((gap - mean[w.of]) ** 2, later)),
        "gap_log": w.ratio(np.log10(np.maximum(gap * 1e6, 1.0)), later),
    }


def _sides(w: _Windows) -> Values:
    k = w.packets
    turned = np.diff(k.up, prepend=k.up[0])
    turned[w.starts] = False
    return {
        "up": w.mean(k.up),
        "up_bytes": w.ratio(k.up, k.length),
        "turns": w.mean(turned),
        "flows": w.distinct(k.flow),
        "server_ports": w.distinct(k.server_port.astype(np.uint64)),
        "pairs": w.distinct(k.pair),
    }

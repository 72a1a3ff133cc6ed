"""Captures the slow way: one packet at a time with dpkt, plain loops; tests/data compares."""

import itertools
import math

import dpkt


def decode(frame):
    """What ``qoejax.data.packets`` should say of an Ethernet frame, with dpkt's own parsers."""
    eth = dpkt.ethernet.Ethernet(frame)
    inner = eth.data
    out = {"length": len(frame), "flags": 0, "payload": 0, "server_port": 0, "ttl": 0}
    if isinstance(inner, dpkt.ip.IP):
        out |= {"protocol": inner.p, "ttl": inner.ttl}
    elif isinstance(inner, dpkt.ip6.IP6):
        out |= {"protocol": inner.p, "ttl": inner.hlim}
    elif isinstance(inner, dpkt.arp.ARP):
        return out | {"protocol": 254, "up": inner.op == 1}
    else:
        return out | {"protocol": 255, "up": True}
    layer = inner.data
    if isinstance(layer, dpkt.tcp.TCP):
        opens = layer.flags & 18 == 2
        up = opens or (layer.flags & 18 != 18 and layer.sport >= layer.dport)
        out |= {"flags": layer.flags, "payload": len(layer.data), "up": up}
        out["server_port"] = layer.dport if up else layer.sport
    elif isinstance(layer, dpkt.udp.UDP):
        up = layer.sport >= layer.dport
        out |= {"payload": len(layer.data), "up": up}
        out["server_port"] = layer.dport if up else layer.sport
    elif isinstance(layer, dpkt.icmp.ICMP):
        out["up"] = layer.type != 0
    return out


def by_count(pairs, size):
    """Rows of each window of ``size`` packets: full ones of a pair, then those of the rest."""
    open_, full, last = {}, [], {}
    for i, pair in enumerate(pairs):
        open_.setdefault(pair, []).append(i)
        last[pair] = i
        if len(open_[pair]) == size:
            full.append(tuple(open_.pop(pair)))
    rest = sorted(i for rows in open_.values() for i in rows)
    full += [tuple(rest[i : i + size]) for i in range(0, len(rest) - len(rest) % size, size)]
    return sorted(full)


def mean(values):
    return sum(values) / len(values) if values else 0.0


def std(values):
    centre = mean(values)
    return math.sqrt(mean([(v - centre) ** 2 for v in values]))


def features(rows):
    """Some features of one window, from dicts of its packets in order."""
    gaps = [b["time"] - a["time"] for a, b in itertools.pairwise(rows)]
    n, span = len(rows), rows[-1]["time"] - rows[0]["time"]
    up = [r["payload"] for r in rows if r["up"] and r["payload"]]
    return {
        "packets": n,
        "duration": span,
        "rate": n / max(span, 1e-6),
        "byte_rate": sum(r["length"] for r in rows) / max(span, 1e-6),
        "syn_flag": mean([bool(r["flags"] & 2) for r in rows]),
        "ack_flag": mean([bool(r["flags"] & 16) for r in rows]),
        "fin_flag": mean([bool(r["flags"] & 1) for r in rows]),
        "time_to_live": mean([r["ttl"] for r in rows]),
        "tcp": mean([r["protocol"] == 6 for r in rows]),
        "arp": mean([r["protocol"] == 254 for r in rows]),
        "size_max": max(r["length"] for r in rows),
        "size_std": std([r["length"] for r in rows]),
        "payload_up": mean(up),
        "gap_min": min(gaps),
        "gap_max": max(gaps),
        "gap_std": std(gaps),
        "up": mean([r["up"] for r in rows]),
        "turns": sum(a["up"] != b["up"] for a, b in itertools.pairwise(rows)) / n,
        "server_ports": len({r["server_port"] for r in rows}) / n,
    }


def answers(events):
    """(row, seconds) of each answer, from (key, role, time): "ask", "answer" or "refuse"."""
    asked, out = {}, []
    for row, (key, role, time) in enumerate(events):
        if role == "ask":
            asked.setdefault(key, time)
        elif key in asked:
            wait = time - asked.pop(key)
            out.append((row, wait if role == "answer" else math.inf))
    return out

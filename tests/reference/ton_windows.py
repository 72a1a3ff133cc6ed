"""Windows of TON_IoT records, one record at a time, in plain Python."""

import math

FAILED = {"S0", "REJ", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH"}
WORST = {"dns": 1.0, "http": 6.0}


def number(cell):
    return 0.0 if cell in ("", "-") else float(cell)


def kind(row):
    """The transaction that a record is, if it is one that can be judged."""
    service = row["service"]
    if service not in WORST or (service == "dns" and row["dst_port"] != "53"):
        return None
    return service if row["conn_state"] in FAILED | {"SF"} else None


def web(seconds, worst):
    """ITU-T G.1030: 5 at a fiftieth of the worst time, 1 at the worst, logarithmic between."""
    best = worst / 50
    return 5 + 4 * math.log(min(max(seconds, best), worst) / best) / math.log(best / worst)


def score(rows, service, low, high):
    """MOS of the benign transactions that begin in [low, high), None if fewer than five."""
    mine = [
        r
        for r in rows
        if kind(r) == service and r["type"] == "normal" and low <= int(r["ts"]) < high
    ]
    if len(mine) < 5:
        return None
    done = [web(number(r["duration"]), WORST[service]) for r in mine if r["conn_state"] == "SF"]
    f = 1 - len(done) / len(mine)
    return f + (1 - f) * (sum(done) / len(done) if done else 0)


def entropy(values):
    share = [values.count(v) / len(values) for v in set(values)]
    return -sum(p * math.log2(p) for p in share)


def features(rows, low, high):
    """Some features of the bin [low, high), of the records that ended in it."""
    mine = [r for r in rows if low <= int(r["ts"]) + number(r["duration"]) < high]
    n = max(1, len(mine))
    out = {"records": len(mine) / (high - low)}
    for name in ("src_bytes", "dst_pkts", "missed_bytes"):
        out[name] = sum(number(r[name]) for r in mine) / (high - low)
    packets = sum(number(r["src_pkts"]) + number(r["dst_pkts"]) for r in mine)
    size = sum(number(r["src_ip_bytes"]) + number(r["dst_ip_bytes"]) for r in mine)
    out["packet_size"] = size / packets if packets else 0
    out["duration"] = sum(number(r["duration"]) for r in mine) / n
    out["longest"] = max((number(r["duration"]) for r in mine), default=0)
    out["proto_udp"] = sum(r["proto"] == "udp" for r in mine) / n
    out["service_http"] = sum(r["service"] == "http" for r in mine) / n
    out["state_REJ"] = sum(r["conn_state"] == "REJ" for r in mine) / n
    for service in ("dns", "http"):
        judged = [r for r in mine if kind(r) == service]
        done = [r for r in judged if r["conn_state"] == "SF"]
        out[f"{service}_failed"] = 1 - len(done) / len(judged) if judged else 0
        clipped = [
            min(max(number(r["duration"]), WORST[service] / 50), WORST[service]) for r in done
        ]
        out[f"{service}_wait"] = math.prod(clipped) ** (1 / len(done)) if done else 0
    out["distinct_src_ip"] = len({r["src_ip"] for r in mine})
    out["distinct_dst_port"] = len({r["dst_port"] for r in mine})
    out["dst_entropy"] = entropy([r["dst_ip"] for r in mine]) if mine else 0
    return out


def label(rows, low, high):
    """The most frequent attack among the records that ended in the bin, or normal."""
    types = [r["type"] for r in rows if low <= int(r["ts"]) + number(r["duration"]) < high]
    attacks = [t for t in types if t != "normal"]
    return max(set(attacks), key=lambda t: (attacks.count(t), t)) if attacks else "normal"

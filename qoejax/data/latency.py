"""How long servers take to answer, as packets show it, and what that is worth (NumPy and JAX).

Seen at the place of capture, from a client's request to the first answer to it:

    handshake  TCP SYN to SYN and ACK; a refusal (RST) never answers
    dns        DNS query to the response of the same number, over UDP
    mqtt       CONNECT, PUBLISH of QoS 1 or 2, SUBSCRIBE, UNSUBSCRIBE and PINGREQ to their answers

A request that is sent again counts from the first time, for a user waits from then on. Requests
that nothing answers are not rated: no packet shows when a client gives up.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt64

from qoejax.data import packets as p
from qoejax.data.table import MOS, QOME
from qoejax.qoe import machine, mos

SERVICES: tuple[tuple[str, str], ...] = (("handshake", MOS), ("dns", MOS), ("mqtt", QOME))
"""Name and scale of each service, in the order of the scores."""

WORST_S = 1.0
"""Wait that rates 1: of DNS and TCP answers, which come before anything is shown."""

BEST_S = WORST_S / 50
"""Wait that rates 5; a free choice."""

BUDGET_S = machine.FIVE_QI[9].delay_ms / 1e3
"""Of MQTT: the packet delay budget of 5QI 9, the default of TCP traffic (TS 23.501)."""

PATIENCE_S = 60.0
"""Requests are forgotten after so long."""

MOST_OPEN = 65_536
"""Requests remembered at once; beyond it, the oldest go."""

_REQUEST, _ANSWER, _REFUSAL = 1, 2, 3
# MQTT packet types that answer, and the type that each of them answers.
_MQTT_ANSWERS = {2: 1, 4: 3, 5: 3, 9: 8, 11: 10, 13: 12}


class Open(NamedTuple):
    """Requests without an answer so far: what they are told by, and when they were first sent."""

    key: UInt64[np.ndarray, " n"]
    time: Float64[np.ndarray, " n"]


NONE_OPEN = Open(np.zeros(0, np.uint64), np.zeros(0))


class Answers(NamedTuple):
    """Packets that answer a request: their row, the service's index, the wait (inf if refused)."""

    row: Int64[np.ndarray, " a"]
    service: Int64[np.ndarray, " a"]
    seconds: Float64[np.ndarray, " a"]


def match(open_: Open, packets: p.Packets) -> tuple[Answers, Open]:
    """The answers among the packets, which continue those before, and what is open after them."""
    row, role, service, key = _exchanges(packets)
    n = len(open_.key)
    keys = np.concatenate([open_.key, key])
    times = np.concatenate([open_.time, packets.time[row]])
    roles = np.concatenate([np.full(n, _REQUEST), role])
    if not len(keys):
        return Answers(row, service, np.zeros(0)), open_
    order = np.argsort(keys, kind="stable")
    keys, times, roles = keys[order], times[order], roles[order]
    asks = roles == _REQUEST
    follows = np.r_[False, keys[1:] == keys[:-1]]
    goes_on = asks & follows & np.r_[False, asks[:-1]]  # the same request again
    first = np.maximum.accumulate(np.where(goes_on, 0, np.arange(len(keys))))
    answers = np.flatnonzero(~asks & follows & np.r_[False, asks[:-1]])
    asked = times[first[answers - 1]]
    wait = np.where(roles[answers] == _ANSWER, np.maximum(times[answers] - asked, 0.0), np.inf)
    which = order[answers] - n
    last = np.flatnonzero(asks & np.r_[keys[1:] != keys[:-1], True])
    since = times[first[last]]
    kept = last[since >= (packets.time[-1] if len(packets.time) else -np.inf) - PATIENCE_S]
    kept = kept[np.argsort(times[first[kept]], kind="stable")[-MOST_OPEN:]]
    return Answers(row[which], service[which], wait), Open(keys[kept], times[first[kept]])


def _exchanges(
    packets: p.Packets,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, UInt64[np.ndarray, " e"]]:
    """Row, role, service and key of each packet that asks or answers, in order."""
    tcp, flags = packets.protocol == p.TCP, packets.flags & (p.SYN | p.RST | p.ACK)
    handshake = (
        np.select([flags == p.SYN, flags == p.SYN | p.ACK, flags & p.RST > 0], [1, 2, 3], 0) * tcp
    )
    named = (packets.app == p.DNS) & (packets.protocol == p.UDP) & (packets.ident >= 0)
    dns = np.where(named, np.where(packets.ident >> 16 > 0, _ANSWER, _REQUEST), 0)
    kind = np.where(packets.app == p.MQTT, packets.message, 0).astype(np.int64)
    answers, asks = np.array(list(_MQTT_ANSWERS)), np.array(list(_MQTT_ANSWERS.values()))
    quiet = (kind == 3) & (packets.ident < 0)  # PUBLISH of QoS 0: nothing answers it
    mqtt = np.select([np.isin(kind, answers), np.isin(kind, asks) & ~quiet], [_ANSWER, _REQUEST], 0)
    asked = np.arange(16)
    asked[answers] = asks
    number = np.select(
        [mqtt > 0, dns > 0], [asked[kind % 16] << 17 | packets.ident + 1, packets.ident & 0xFFFF], 0
    )
    role = np.select([handshake > 0, dns > 0, mqtt > 0], [handshake, dns, mqtt], 0)
    row = np.flatnonzero(role)
    service = np.select([handshake > 0, dns > 0], [0, 1], 2)[row]
    tag = (number[row] << 2 | service).astype(np.uint64)
    return row, role[row], service, p.mix(packets.flow[row] ^ p.mix(tag))


def score(answers: Answers) -> Float32[np.ndarray, " a"]:
    """What each wait is worth: MOS of a transaction (ITU-T G.1030), or 1 in budget and 0 else."""
    n = len(answers.row)
    padded = np.full(1 << max(0, n - 1).bit_length(), WORST_S, np.float32)  # few shapes to compile
    padded[:n] = np.minimum(answers.seconds, WORST_S)
    rated = np.asarray(_web(jnp.asarray(padded)))[:n]
    return np.where(answers.service == 2, answers.seconds <= BUDGET_S, rated).astype(np.float32)


@jax.jit
def _web(seconds: jax.Array) -> jax.Array:
    return jax.vmap(lambda s: mos.web(s, WORST_S, BEST_S))(seconds)

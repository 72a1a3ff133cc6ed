"""Where the bytes of a live capture come from: a growing file, standard input, an interface (host).

A tap gives its capture in pieces: what came within ``GATHER_S``, at most about ``framing.BLOCK``
bytes; and an empty piece every ``POLL_S`` while nothing comes, so that who reads has a turn.
"""

import gzip
import os
import pathlib
import select
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import dpkt

from qoejax.data import framing
from qoejax.data.errors import DataError
from qoejax.run.errors import RunError

POLL_S = 0.05
GATHER_S = 0.2

SNAP = 512
"""Bytes kept of a frame of an interface: headers, and what is looked at behind them."""

_BUFFER = 1 << 25  # bytes of frames that may wait in the kernel
_BURST = 4096  # frames taken before anything else is done
# linux/if_packet.h, linux/if_arp.h and asm-generic/socket.h; Python's socket lacks them.
_SOL_PACKET, _ADD_MEMBERSHIP, _STATISTICS, _PROMISCUOUS = 263, 1, 6, 1
_TIMESTAMP_NS, _ALL, _OUTGOING = 35, 0x0003, 4
_LOOPBACK, _LINKS = 772, {1: dpkt.pcap.DLT_EN10MB, 772: dpkt.pcap.DLT_EN10MB, 65534: 101}
_RAW = 101


class Tap(NamedTuple):
    """A capture that may go on; ``lost`` says how many packets it has missed so far."""

    name: str
    chunks: Iterator[bytes]
    lost: Callable[[], int] = lambda: 0


Read = Callable[[], bytes | None]
"""Bytes that came, none if none came within ``POLL_S``, None at the end."""


def _gathered(read: Read, stop: Callable[[], bool]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size, since = 0, time.monotonic()
    while True:
        more = None if stop() else read()
        if more:
            since = since if parts else time.monotonic()
            parts.append(more)
            size += len(more)
        if not more or size >= framing.BLOCK or time.monotonic() - since >= GATHER_S:
            yield b"".join(parts)
            parts, size = [], 0
        if more is None:
            return


def file(path: pathlib.Path, grows: bool, stop: Callable[[], bool]) -> Tap:
    """A file, to its end or, if it ``grows``, until ``stop()``.

    The chunks raise DataError where it is replaced or cut short while it is followed.

    Raises:
      RunError: it cannot be opened, or is compressed and would grow.
    """
    if grows and framing.is_gzip(path):
        raise RunError(
            f"input {path} is compressed: it can only be read to its end (--stop_at_end)"
        )
    try:
        raw = path.open("rb")
    except OSError as e:
        raise RunError(f"input {path} cannot be read: {e.strerror or e}") from None
    stream = framing.opened(path, raw)

    def read() -> bytes | None:
        try:
            more = stream.read1(framing.BLOCK)
            if more or not grows:
                return more or None
            _same(path, raw)
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            what = f"the compressed data break off ({e})"
            raise framing.Damage(what, str(path), stream.tell()) from e
        except OSError as e:
            raise DataError(f"{path}: cannot be read ({e.strerror or e}).") from e
        time.sleep(POLL_S)
        return b""

    return Tap(str(path), _closing(raw, _gathered(read, stop)))


def _same(path: pathlib.Path, raw: Any) -> None:
    """Refuses to follow a file that is no longer what it was."""
    mine, here = os.fstat(raw.fileno()), raw.tell()
    try:
        now = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"{path}: was removed after byte {here} had been read.") from None
    if (now.st_ino, now.st_dev) != (mine.st_ino, mine.st_dev):
        raise DataError(
            f"{path}: was replaced by another file after byte {here} had been read (rotated?); "
            "run the command again to follow that one."
        )
    if mine.st_size < here:
        raise DataError(
            f"{path}: was cut short to {mine.st_size} bytes after byte {here} had been read."
        )


def descriptor(number: int, name: str, stop: Callable[[], bool]) -> Tap:
    """An open file descriptor, such as standard input's, to its end or until ``stop()``."""

    def read() -> bytes | None:
        if not select.select([number], [], [], POLL_S)[0]:
            return b""
        return os.read(number, framing.BLOCK) or None

    return Tap(name, _gathered(read, stop))


def interface(name: str, stop: Callable[[], bool]) -> Tap:
    """Frames of a network interface (Linux), as the bytes of a capture, until ``stop()``.

    The interface listens to frames for others too (it is promiscuous) as long as the tap is open.

    Raises:
      RunError: another system, no such interface, or no right to capture on it.
    """
    if not hasattr(socket, "AF_PACKET"):
        raise RunError("capturing on an interface needs Linux; pipe a capture to --input=- instead")
    try:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    except PermissionError:
        raise RunError(
            f"no right to capture on interface {name!r}: expected root or CAP_NET_RAW; or pipe "
            "`tcpdump -U -w -` to --input=-"
        ) from None
    try:
        tap.bind((name, _ALL))
        tap.setsockopt(socket.SOL_SOCKET, _TIMESTAMP_NS, 1)
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        wanted = struct.pack("iHH8s", socket.if_nametoindex(name), _PROMISCUOUS, 0, b"")
        tap.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, wanted)
    except OSError as e:
        tap.close()
        known = ", ".join(known for _, known in socket.if_nameindex())
        raise RunError(f"interface {name!r}: {e.strerror or e}; expected one of {known}") from None
    tap.setblocking(False)
    lost = [0]

    def missed() -> int:
        if tap.fileno() >= 0:  # the kernel's count starts again whenever it is asked
            lost[0] += struct.unpack("II", tap.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1]
        return lost[0]

    return Tap(name, _closing(tap, _captured(tap, name, stop), missed), missed)


def _captured(tap: socket.socket, name: str, stop: Callable[[], bool]) -> Iterator[bytes]:
    """A capture's header, then the frames of a socket as its records."""
    kind = tap.getsockname()[3]
    yield struct.pack(
        "<IHHiIII", dpkt.pcap.TCPDUMP_MAGIC_NANO, 2, 4, 0, 0, SNAP, _LINKS.get(kind, _RAW)
    )
    data = bytearray(SNAP)

    def read() -> bytes:
        if not select.select([tap], [], [], POLL_S)[0]:
            return b""
        records = []
        try:
            for _ in range(_BURST):
                # With MSG_TRUNC the size is the frame's own, whatever fits into the buffer.
                size, extra, _, address = tap.recvmsg_into([data], 64, socket.MSG_TRUNC)
                if kind == _LOOPBACK and address[2] == _OUTGOING:
                    continue  # comes back as an incoming one
                kept, (seconds, ns) = min(size, SNAP), struct.unpack("qq", extra[0][2])
                records.append(struct.pack("<IIII", seconds, ns, kept, size) + data[:kept])
        except BlockingIOError:
            pass
        except OSError as e:
            raise DataError(f"interface {name}: {e.strerror or e}.") from e
        return b"".join(records)

    yield from _gathered(read, stop)


def _closing(
    resource: Any, chunks: Iterator[bytes], before: Callable[[], Any] = lambda: None
) -> Iterator[bytes]:
    """The chunks; then, however they end, ``before()`` is called and the resource is closed."""
    try:
        yield from chunks
    finally:
        before()
        resource.close()

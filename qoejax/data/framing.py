"""Frames of a capture file, a block at a time: pcap and pcapng, plain or gzipped. NumPy only.

A capture is read as far as it is sound: what is damaged or cut off ends it with a warning, and
never with an error. Record lengths are not trusted: memory is bounded by the block size. File
headers, interface blocks and link-type numbers are dpkt's.
"""

import gzip
import os
import pathlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import dpkt
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from qoejax.data.errors import DataError

SUFFIXES = (".pcap", ".pcapng", ".cap", ".pcap.gz", ".pcapng.gz", ".cap.gz")

BLOCK = 1 << 22
"""Bytes read at a time."""

MOST = 262_144
"""A longer packet is a sign of damage (libpcap's MAXIMUM_SNAPLEN)."""

HEAD = 24
"""Bytes of a pcap file's header; the first block of a pcapng file is longer."""

MARGIN = 512
"""Zero bytes after the data of a block: a header may be looked at beyond its packet's end."""

_NG_MAGIC = struct.pack("<I", dpkt.pcapng.PCAPNG_BT_SHB)
_PCAP_ORDER = {  # magic as it stands in the file -> byte order, seconds of a fraction's unit
    struct.pack(">I", dpkt.pcap.TCPDUMP_MAGIC): (">", 1e-6),
    struct.pack("<I", dpkt.pcap.TCPDUMP_MAGIC): ("<", 1e-6),
    struct.pack(">I", dpkt.pcap.TCPDUMP_MAGIC_NANO): (">", 1e-9),
    struct.pack("<I", dpkt.pcap.TCPDUMP_MAGIC_NANO): ("<", 1e-9),
}
_LINK_BITS = 0x0FFFFFFF  # The upper bits of a pcap header's link type tell of checksums.
_INTERFACES = 4096
_LATEST = 253_402_300_799.0  # the end of the year 9999


class Frames(NamedTuple):
    """n frames: frame i is ``data[start[i] : start[i] + captured[i]]``.

    ``length`` is that on the wire, in bytes; ``time`` is in seconds since 1970, in the years 1970
    to 9999; ``place`` is about the share of the file before the frame, in 0..1.
    """

    data: UInt8[np.ndarray, " bytes"]
    start: Int64[np.ndarray, " n"]
    captured: Int64[np.ndarray, " n"]
    length: Int64[np.ndarray, " n"]
    time: Float64[np.ndarray, " n"]
    link: Int64[np.ndarray, " n"]
    place: Float64[np.ndarray, " n"]


_NONE = np.zeros(0, np.int64)
NO_FRAMES = Frames(np.zeros(MARGIN, np.uint8), _NONE, _NONE, _NONE, np.zeros(0), _NONE, np.zeros(0))


class _Interface(NamedTuple):
    link: int
    unit: float  # seconds of a tick
    offset: float  # seconds


Rows = list[tuple[int, int, int, float, int]]  # start, captured, length, time, link
Parse = Callable[[bytes], tuple[Rows, int, str]]
"""Rows of the whole records in a buffer, the bytes they take, and "" or what damage ends them."""


def is_capture(path: pathlib.Path) -> bool:
    """Whether a file is a capture, by its name."""
    return path.name.lower().endswith(SUFFIXES)


class Damage(DataError):
    """What ends a capture before its time: ``what``, in words, and the ``byte`` where it is."""

    def __init__(self, what: str, name: str = "", byte: int = 0):
        """``name`` is that of the capture."""
        super().__init__(f"{name}: {what}, at byte {byte}.")
        self.what, self.byte = what, byte


class CutOff(Damage):
    """A last record that is not whole: of a capture that goes on, the rest may still come."""


def follow(name: str, chunks: Iterable[bytes]) -> Iterator[Frames]:
    """The frames of a capture that comes in pieces: for each piece, those that it makes whole.

    A piece that completes no record, such as an empty one, gives no frames, but gives them: who
    follows a live capture so has a turn. ``place`` is 0.

    Args:
      name: of the capture, for errors.
      chunks: its bytes, however they are cut.

    Raises:
      DataError: it does not begin as a capture does.
      Damage: a record that cannot be.
      CutOff: the capture ends within a record.
    """
    buffer, before, parse = b"", 0, None
    for chunk in chunks:
        buffer += chunk
        if parse is None and len(buffer) >= HEAD:
            parse, taken = _parser(name, buffer)
            buffer, before = buffer[taken:], taken
        if parse is None or not chunk:
            yield NO_FRAMES
            continue
        rows, taken, damage = parse(buffer)
        yield _frames(buffer[:taken], rows) if rows else NO_FRAMES
        buffer, before = buffer[taken:], before + taken
        if damage:
            raise Damage(damage, name, before)
    if parse is None:
        raise _no_capture(name)
    if buffer:
        raise CutOff("the last record is cut off", name, before)


def read(path: str | os.PathLike[str], warnings: list[str]) -> Iterator[Frames]:
    """The frames of a capture, in the file's order.

    Args:
      path: the file.
      warnings: receives a sentence for all that could not be read.

    Raises:
      DataError: the file is missing or unreadable, or does not begin as a capture does.
    """

    def sound(stream: Any) -> Iterator[bytes]:
        try:
            yield from blocks(stream)
        except Damage as e:
            warnings.append(e.what)

    try:
        with open(path, "rb") as raw:
            size = max(1, os.fstat(raw.fileno()).st_size)
            before = 0.0
            for frames in follow(str(path), sound(opened(path, raw))):
                here = min(1.0, raw.tell() / size)
                if len(frames.start):
                    share = frames.start / (len(frames.data) - MARGIN)
                    yield frames._replace(place=before + (here - before) * share)
                    before = here
    except CutOff as e:
        warnings.append(e.what)
    except Damage as e:
        warnings.append(f"{e.what}; the rest of the capture is left out")
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror or e}).") from e


def opened(path: str | os.PathLike[str], raw: Any) -> Any:
    """The stream of a capture's own bytes, out of those of its file."""
    return gzip.GzipFile(fileobj=raw) if is_gzip(path) else raw


def blocks(stream: Any, name: str = "") -> Iterator[bytes]:
    """All bytes of a stream, about ``BLOCK`` at a time.

    Raises:
      Damage: compressed data break off; all that could be read of them has been given.
    """
    while True:
        parts, left = [], BLOCK
        try:
            # In pieces: one read of it all would lose what came before compressed data broke off.
            while left > 0 and (part := stream.read1(left)):
                parts.append(part)
                left -= len(part)
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            yield b"".join(parts)
            raise Damage(f"the compressed data break off ({e})", name, stream.tell()) from e
        yield b"".join(parts)
        if left > 0:
            return


def is_gzip(path: str | os.PathLike[str]) -> bool:
    """Whether a capture is compressed, by its name."""
    return str(path).lower().endswith(".gz")


def _parser(name: str, head: bytes) -> tuple[Parse, int]:
    """The reader of a capture's records, and where they begin."""
    if head[:4] in _PCAP_ORDER:
        order, unit = _PCAP_ORDER[head[:4]]
        header = dpkt.pcap.LEFileHdr if order == "<" else dpkt.pcap.FileHdr
        return _pcap(order, unit, header(head).linktype & _LINK_BITS), HEAD
    if head[:4] == _NG_MAGIC:
        return _pcapng(), 0
    raise _no_capture(name)


def _no_capture(name: str) -> DataError:
    return DataError(f"{name}: is no capture; expected a file in pcap or pcapng form.")


def _pcap(order: str, unit: float, link: int) -> Parse:
    unpack = struct.Struct(f"{order}IIII").unpack_from

    def parse(buffer: bytes) -> tuple[Rows, int, str]:
        rows: Rows = []
        at, last = 0, len(buffer) - 16
        while at <= last:
            seconds, fraction, captured, length = unpack(buffer, at)
            if captured > MOST:
                return rows, at, f"a record says that it has {captured} bytes"
            end = at + 16 + captured
            if end > len(buffer):
                break
            rows.append((at + 16, captured, length, seconds + fraction * unit, link))
            at = end
        return rows, at, ""

    return parse


def _pcapng() -> Parse:
    """Sections may differ in byte order, interfaces in link type and clock."""
    state: dict[str, Any] = {"order": "<", "interfaces": [], "time": 0.0}

    def parse(buffer: bytes) -> tuple[Rows, int, str]:
        rows: Rows = []
        at = 0
        while at + 12 <= len(buffer):
            if buffer[at : at + 4] == _NG_MAGIC:
                big = buffer[at + 8 : at + 12] == struct.pack(">I", dpkt.pcapng.BYTE_ORDER_MAGIC)
                state.update(order=">" if big else "<", interfaces=[])
            kind, total = struct.unpack_from(f"{state['order']}II", buffer, at)
            if total < 12 or total % 4 or total > MOST + 65_536:
                return rows, at, f"a block says that it has {total} bytes"
            if at + total > len(buffer):
                break
            damage = _block(state, kind, buffer[at : at + total], at, rows)
            if damage:
                return rows, at, damage
            at += total
        return rows, at, ""

    return parse


def _block(state: dict[str, Any], kind: int, block: bytes, at: int, rows: Rows) -> str:
    """Reads one block into ``state`` or ``rows``; returns "" or what is wrong with it."""
    order, interfaces = state["order"], state["interfaces"]
    if kind == dpkt.pcapng.PCAPNG_BT_IDB:
        if len(interfaces) >= _INTERFACES:
            return f"a section has more than {_INTERFACES} interfaces"
        interfaces.append(_interface(block, order))
        return ""
    if kind == dpkt.pcapng.PCAPNG_BT_SPB and len(block) >= 16:
        length = struct.unpack_from(f"{order}I", block, 8)[0]
        start, captured, time, number = 12, min(length, len(block) - 16), state["time"], 0
    elif kind in (dpkt.pcapng.PCAPNG_BT_EPB, dpkt.pcapng.PCAPNG_BT_PB) and len(block) >= 32:
        form = "IIIII" if kind == dpkt.pcapng.PCAPNG_BT_EPB else "HxxIIII"
        number, high, low, captured, length = struct.unpack_from(order + form, block, 8)
        start, time = 28, 0.0
        if number < len(interfaces):
            time = interfaces[number].offset + ((high << 32) | low) * interfaces[number].unit
    else:
        return ""  # names, statistics and whatever else: no packets
    if number >= len(interfaces):
        return f"a packet names interface {number} of {len(interfaces)}"
    if captured > len(block) - start - 4:
        return f"a packet says that it has {captured} bytes in a block of {len(block)}"
    state["time"] = time
    rows.append((at + start, captured, length, time, interfaces[number].link))
    return ""


def _interface(block: bytes, order: str) -> _Interface:
    """Link type and clock of an interface; microseconds where it does not say, or is damaged."""
    link = struct.unpack_from(f"{order}H", block, 8)[0] if len(block) >= 20 else -1
    name = "InterfaceDescriptionBlockLE" if order == "<" else "InterfaceDescriptionBlock"
    unit, offset = 1e-6, 0.0
    try:
        for option in getattr(dpkt.pcapng, name)(block).opts:
            if option.code == dpkt.pcapng.PCAPNG_OPT_IF_TSRESOL and option.len == 1:
                power = option.data[0]
                unit = 2.0 ** -(power & 0x7F) if power & 0x80 else 10.0**-power
            elif option.code == dpkt.pcapng.PCAPNG_OPT_IF_TSOFFSET and option.len == 8:
                offset = float(struct.unpack(f"{order}q", option.data)[0])
    except Exception:  # whatever dpkt raises on damaged options
        return _Interface(link, 1e-6, 0.0)
    return _Interface(link, unit, offset)


def _frames(buffer: bytes, rows: Rows) -> Frames:
    starts, captured, length, time, link = zip(*rows, strict=True)
    sizes = np.array(captured, np.int64)
    return Frames(
        data=np.frombuffer(buffer + bytes(MARGIN), np.uint8),
        start=np.array(starts, np.int64),
        captured=sizes,
        length=np.clip(np.array(length, np.int64), sizes, MOST),
        time=np.clip(np.array(time, np.float64), 0.0, _LATEST),
        link=np.array(link, np.int64),
        place=np.zeros(len(rows)),
    )

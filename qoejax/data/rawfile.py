"""Raw record files (.csv, .csv.gz, .parquet) as batches of named columns (pyarrow, on the host).

Header cells are matched by ``schema.plain``: case, padding, quotes, order and extra columns do not
matter. A CSV file is read with numbers parsed by pyarrow; where a cell cannot be read so, the file
is read again from that block on with all cells as bytes, and each cell is judged on its own.
"""

import codecs
import csv
import gzip
import hashlib
import io
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Int64

from qoejax.data.errors import DataError
from qoejax.data.schema.base import plain

HEAD_BYTES = 1 << 16
BLOCK_BYTES = 1 << 20  # The fastest for pyarrow's CSV reader; larger blocks fall out of cache.
PARQUET_ROWS = 8192
_NULLS = ["", "-"]


class RawFile(NamedTuple):
    """A file whose header has been read: names as written, and lines up to the first row."""

    path: pathlib.Path
    names: tuple[str, ...]
    skip: int
    parquet: bool


class Batch(NamedTuple):
    """Columns by the name they were asked for, the rows' numbers in the file, the fraction read."""

    columns: dict[str, pa.Array]
    row: Int64[np.ndarray, " n"]
    done: float


def open_raw(path: pathlib.Path) -> RawFile:
    """Reads the header.

    Raises:
      DataError: the file is missing, unreadable, empty, or not a comma-separated or Parquet table.
    """
    try:
        with path.open("rb") as f:
            start = f.read(HEAD_BYTES)
        if start[:4] == b"PAR1":
            names = pyarrow.parquet.ParquetFile(path).schema_arrow.names
            return RawFile(path, tuple(names), 0, True)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(path) as f:
                start = f.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as e:
        raise DataError(f"{path}: cannot be read ({e}).") from e
    return _csv_header(path, start)


def _csv_header(path: pathlib.Path, head: bytes) -> RawFile:
    head = head.removeprefix(b"\xef\xbb\xbf")
    _refuse_other_formats(path, head)
    lines = head.splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip())
    names = next(csv.reader([lines[at].decode("utf-8", errors="replace")], skipinitialspace=True))
    names = tuple(name.strip() for name in names)
    if len(names) == 1 and (found := [c for c in ";\t|" if c in names[0]]):
        raise DataError(f"{path}: columns are separated by {found[0]!r}; expected commas.")
    if len(head) < HEAD_BYTES and not any(line.strip() for line in lines[at + 1 :]):
        raise DataError(f"{path}: has a header but no rows.")
    return RawFile(path, names, at + 1, False)


def _refuse_other_formats(path: pathlib.Path, head: bytes) -> None:
    if not head.strip():
        raise DataError(f"{path}: is empty.")
    if head[:2] == b"PK":
        raise DataError(f"{path}: is a zip archive; unpack it first.")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: is UTF-16; expected UTF-8.")
    if head.lstrip().startswith(b"<"):
        raise DataError(f"{path}: is a web page (HTML), not a table; download the file itself.")
    if b"\n" not in head:
        if b"\r" in head:
            raise DataError(f"{path}: lines end in CR alone; expected LF or CR LF.")
        if len(head) == HEAD_BYTES:
            raise DataError(f"{path}: no line end in the first {HEAD_BYTES} bytes; expected CSV.")


def match(file: RawFile, wanted: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Positions of the wanted columns in a file, and the wanted columns that it lacks.

    Raises:
      DataError: a wanted column is there twice.
    """
    positions: dict[str, list[int]] = {}
    for i, name in enumerate(file.names):
        positions.setdefault(plain(name), []).append(i)
    found, missing = {}, []
    for name in wanted:
        at = positions.get(plain(name), [])
        if len(at) > 1:
            raise DataError(f"{file.path}: column {name!r} appears {len(at)} times; expected once.")
        if at:
            found[name] = at[0]
        else:
            missing.append(name)
    return found, missing


def sha256(path: pathlib.Path) -> str:
    """SHA-256 of a file as it lies on the disk, hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def batches(
    file: RawFile,
    positions: Mapping[str, int],
    texts: frozenset[str],
    skipped: set[int],
) -> Iterator[Batch]:
    """Streams a file.

    Args:
      file: as ``open_raw`` returns it.
      positions: the columns to read, as ``match`` returns them.
      texts: those of them that are text; the others are numbers.
      skipped: receives the numbers (from 0, blank lines apart) of rows of another width than the
        header; they are left out.

    Raises:
      DataError: the file breaks off (a truncated archive), or cannot be cut into rows.
    """
    source = (
        _parquet_batches(file, positions) if file.parquet else _csv(file, positions, texts, skipped)
    )
    valid = 0
    try:
        for batch, done in source:
            columns = dict(zip(positions, batch.columns, strict=True))
            yield Batch(columns, _row_numbers(valid, batch.num_rows, skipped), done)
            valid += batch.num_rows
    except (OSError, EOFError, pa.ArrowException) as e:
        raise DataError(f"{file.path}: cannot be read after row {valid} ({e}).") from e


def _row_numbers(start: int, count: int, skipped: set[int]) -> Int64[np.ndarray, " n"]:
    """Numbers in the file of the well-formed rows ``start`` .. ``start + count - 1``."""
    gaps = np.array(sorted(skipped), np.int64)
    valid = np.arange(start, start + count, dtype=np.int64)
    return valid + np.searchsorted(gaps - np.arange(len(gaps)), valid, side="right")


def _parquet_batches(file: RawFile, positions: Mapping[str, int]) -> Iterator[tuple[Any, float]]:
    table = pyarrow.parquet.ParquetFile(file.path)
    names = [file.names[i] for i in positions.values()]
    total, seen = max(1, table.metadata.num_rows), 0
    for batch in table.iter_batches(PARQUET_ROWS, columns=names):
        seen += batch.num_rows
        yield batch.select(names), seen / total


def _csv(
    file: RawFile, positions: Mapping[str, int], texts: frozenset[str], skipped: set[int]
) -> Iterator[tuple[Any, float]]:
    """Blocks of a CSV file: numbers parsed by pyarrow, or as bytes from the first bad block on."""
    emitted = 0
    for lenient in (False, True):
        kinds = {
            name: pa.binary() if lenient else pa.string() if name in texts else pa.float64()
            for name in positions
        }
        with pa.OSFile(str(file.path)) as raw:
            size = max(1, raw.size())
            stream = pa.CompressedInputStream(raw, "gzip") if _is_gzip(file.path) else raw
            try:
                source = _Utf8(stream)
                for i, batch in enumerate(_reader(source, file, positions, kinds, texts, skipped)):
                    if i >= emitted:
                        yield batch, raw.tell() / size
                        emitted = i + 1
                return
            except pa.ArrowInvalid:
                if lenient:
                    raise


class _Utf8(io.RawIOBase):
    """A stream of valid UTF-8: every byte that is not part of any becomes "?".

    pyarrow reports a row of another width as text; one that cannot be decoded would go uncounted.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode

    def readable(self) -> bool:
        """As all files that are read from."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes (three fewer are read: the decoder may hold as many); b"" ends."""
        while True:
            new = self._stream.read(max(1, size - 3)) if size >= 0 else self._stream.read()
            text = self._decode(new, not new)
            if text or not new:
                return text.encode("utf-8", errors="replace")


def _is_gzip(path: pathlib.Path) -> bool:
    with path.open("rb") as f:
        return f.read(2) == b"\x1f\x8b"


def _reader(
    stream: Any,
    file: RawFile,
    positions: Mapping[str, int],
    kinds: Mapping[str, pa.DataType],
    texts: frozenset[str],
    skipped: set[int],
) -> Any:
    def skip(row: Any) -> str:
        skipped.add(row.number - file.skip - 1)
        return "skip"

    columns = [f"{i}" for i in range(len(file.names))]
    wanted = {columns[i]: kinds[name] for name, i in positions.items()}
    return pyarrow.csv.open_csv(
        stream,
        # One thread: only then does pyarrow number the rows it skips.
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False,
            block_size=BLOCK_BYTES,
            skip_rows=file.skip,
            column_names=columns,
        ),
        # Line ends inside quotes are allowed where there is text besides the label.
        parse_options=pyarrow.csv.ParseOptions(
            invalid_row_handler=skip, newlines_in_values=len(texts) > 1
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=wanted,
            include_columns=list(wanted),
            null_values=_NULLS,
            strings_can_be_null=False,
        ),
    )

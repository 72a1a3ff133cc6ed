"""Made-up rows under the real column names, in the spelling of each release's files.

``python -m tests.data.dummy`` rewrites the builders' dummy_data folders. No value comes from a
real row: numbers are drawn, hosts are from the documentation ranges, texts are invented.
"""

import pathlib
from collections.abc import Iterable

import numpy as np

from qoejax.data import schema
from qoejax.data.table import NUMERIC

BUILDERS = pathlib.Path(schema.__file__).parents[1] / "builders"

TEXTS = {
    "proto": ("tcp", "udp"),
    "service": ("-", "dns", "http", "x-made-up"),
    "conn_state": ("SF", "S0", "REJ"),
    "src_ip": ("192.0.2.1", "192.0.2.2", "192.0.2.3"),
    "ip.src_host": ("198.51.100.1", "198.51.100.2", "0"),
    "http.request.method": ("0.0", "GET", "POST", "0"),
    "player": tuple(f"Nobody {i}" for i in range(20)),
    "user_id": tuple(f"{i}" for i in range(1, 21)),
    "game": ("Made Up", "Invented"),
    "V_id-video": ("1", "2", "3"),
    "QoD_carte-class": ("Card A", "Card B", "Card C", "Card D"),
    "pvs_id": tuple(f"TR00_SRC{i:03d}_HRC01" for i in range(20)),
    "context": ("mobile", "pc"),
}


def labels(config: str) -> tuple[str, ...]:
    """The fine labels of a config, in the spelling of its release's files."""
    level = schema.find(config)
    fine = tuple(level.taxonomy.of)
    if config.startswith("ciciot2023/merged"):
        return tuple("BENIGN" if f == "BenignTraffic" else f.upper() for f in fine)
    return fine


def table(config: str, rows: int, seed: int = 0, only: Iterable[str] = ()) -> list[list[str]]:
    """Header and rows of a file for ``config``; every label in turn, or those in ``only``."""
    level = schema.find(config)
    columns = level.schema.columns
    rng = np.random.default_rng(seed)
    names = tuple(only) or labels(config)
    out = [[*(c.name for c in columns), level.schema.label_column]]
    for i in range(rows):
        row = []
        for c in columns:
            if c.name == "frame.time":
                row.append(f" 2021 {i % 24:02d}:{i % 60:02d}:{rng.uniform(0, 59):012.9f} ")
            elif c.kind == NUMERIC:
                row.append("0.0" if rng.random() < 0.3 else repr(round(rng.lognormal(2, 2), 3)))
            else:
                row.append(str(rng.choice(TEXTS.get(c.name, ("-", "0", "made up")))))
        out.append([*row, names[i % len(names)]])
    return out


def rated(config: str, rows: int, seed: int = 0) -> list[list[str]]:
    """As ``table``, with a score that falls with the first number that is not leaky."""
    level = schema.find(config)
    lines = table(config, rows, seed)
    cause = next(c.name for c in level.schema.columns if c.kind == NUMERIC and not c.leaky)
    rating, j = level.schema.rating, lines[0].index(cause)
    for row in lines[1:]:
        badness = min(1.0, np.log1p(float(row[j])) / 6)
        row[-1] = f"{rating.high - (rating.high - rating.low) * badness:.2f}"
        if rating.interval:
            row[lines[0].index(rating.interval)] = "0.25"
    return lines


def write(path: pathlib.Path, lines: Iterable[Iterable[str]], end: str = "\n") -> pathlib.Path:
    """A comma-separated file of these cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(",".join(line) + end for line in lines).encode())
    return path


def _edge_attack(seed: int) -> list[list[str]]:
    """A per-attack file: flags and checksums in hexadecimal, and the attack's longer name."""
    lines = table("edge_iiotset/15class", 40, seed, only=("OS_Fingerprinting",))
    for name in ("tcp.checksum", "tcp.flags", "icmp.checksum"):
        j = lines[0].index(name)
        for i, row in enumerate(lines[1:]):
            row[j] = f"0x{i * 37:08x}"
    return lines


def main() -> None:
    """Writes every dummy_data folder."""
    for config, path, rows in (
        ("ciciot2023/34class", "ciciot2023/dummy_data/parts/part-00000.csv", 102),
        ("ciciot2023/merged_34class", "ciciot2023/dummy_data/merged/Merged01.csv", 102),
        ("ton_iot/10class", "ton_iot/dummy_data/Train_Test_Network.csv", 80),
        ("edge_iiotset/15class", "edge_iiotset/dummy_data/merged/ML-EdgeIIoT-dataset.csv", 90),
    ):
        write(BUILDERS / path, table(config, rows))
    for name in schema.CONFIGS["human_qoe"]:
        path = BUILDERS / f"human_qoe/dummy_data/{name}.csv"
        write(path, rated(f"human_qoe/{name}", 120))
    attacks = BUILDERS / "edge_iiotset/dummy_data/attacks"
    write(attacks / "OS_Fingerprinting_attack.csv", _edge_attack(1))
    write(attacks / "Normal.csv", table("edge_iiotset/15class", 40, 2, only=("Normal",)))


if __name__ == "__main__":
    main()

"""Captures of made-up packets, written as fast as the disk takes them."""

import pathlib

import numpy as np

RECORD = np.dtype(
    [("sec", "<u4"), ("usec", "<u4"), ("captured", "<u4"), ("wire", "<u4"), ("macs", "V12"),
     ("kind", ">u2"), ("version", "u1"), ("tos", "u1"), ("total", ">u2"), ("id", ">u2"),
     ("piece", ">u2"), ("ttl", "u1"), ("protocol", "u1"), ("check", ">u2"), ("source", ">u4"),
     ("target", ">u4"), ("sport", ">u2"), ("dport", ">u2"), ("seq", ">u4"), ("ack", ">u4"),
     ("offset", "u1"), ("flags", "u1"), ("window", ">u2"), ("sum", ">u4"), ("data", "V26")]
)  # fmt: skip
"""A record of 80 bytes of Ethernet, IPv4 and TCP; all packets of the capture are alike in size."""


def write(path: pathlib.Path, packets: int, hosts: int = 5000, seed: int = 0) -> None:
    """A capture of ``packets`` TCP segments between ``hosts`` clients and twenty servers."""
    rng = np.random.default_rng(seed)
    with open(path, "wb") as file:
        file.write(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000"))
        for start in range(0, packets, 100_000):
            n = min(100_000, packets - start)
            rows = np.zeros(n, RECORD)
            rows["sec"] = 1_700_000_000 + (start + np.arange(n)) // 10_000
            rows["usec"] = (start + np.arange(n)) % 10_000 * 100
            rows["captured"] = rows["wire"] = RECORD.itemsize - 16
            rows["kind"], rows["version"], rows["total"] = 0x0800, 0x45, RECORD.itemsize - 30
            rows["ttl"], rows["protocol"], rows["offset"] = 64, 6, 0x50
            client = 0x0A000000 + rng.integers(1, hosts, n)
            server = 0xC0A80000 + rng.integers(1, 21, n)
            port, down = 32_768 + rng.integers(0, 8, n), rng.random(n) < 0.4
            rows["source"], rows["target"] = np.where(down, (server, client), (client, server))
            rows["sport"], rows["dport"] = np.where(
                down, (1883 + 0 * port, port), (port, 1883 + 0 * port)
            )
            rows["flags"] = rng.choice([2, 16, 24, 17], n)
            rows["flags"] |= np.where(down & (rows["flags"] == 2), 16, 0).astype(np.uint8)
            file.write(rows.tobytes())

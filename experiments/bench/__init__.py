"""Benchmarks: python -m experiments.bench.NAME prints JSON lines."""

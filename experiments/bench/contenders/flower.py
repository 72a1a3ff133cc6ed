"""Flower's simulation on Ray with two actors, in a process of its own.

``flower_worker`` may run under another Python (``--flower_python``) that lacks our packages.
"""

import contextlib
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

import numpy as np

from experiments.bench.workload import Contender, Workload

WORKER = "experiments.bench.contenders.flower_worker"
ROOT = pathlib.Path(__file__).resolve().parents[3]
NEEDS = "import flwr, ray, torch"


def prepare(workload: Workload, *, python: str = "") -> Contender:
    """A simulation that waits for a word between its rounds.

    Raises:
      ModuleNotFoundError: That Python lacks a package.
      RuntimeError: The simulation ended; the sentence has the end of what it said.
    """
    python = python or sys.executable
    found = subprocess.run([python, "-c", NEEDS], capture_output=True, text=True, check=False)
    if found.returncode:
        said = found.stderr.strip().splitlines()[-1]
        missing = next((name for name in NEEDS.split() if f"'{name.strip(',')}'" in said), "flwr")
        raise ModuleNotFoundError(said, name=missing.strip(","))
    folder = tempfile.TemporaryDirectory(prefix="qoejax-flower-")
    home = pathlib.Path(folder.name)
    plain = {k: v for k, v in workload._asdict().items() if k != "draw"}
    (home / "workload.pickle").write_bytes(pickle.dumps(plain))
    log = open(home / "log", "w+b")  # noqa: SIM115 - closed with the process
    process = subprocess.Popen(
        [python, "-m", WORKER, folder.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=log, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdin
    assert process.stdout

    def ask(word: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
        if process.stdout.readline() != "done\n":
            said = _tail(home / "log")
            close()
            raise RuntimeError(f"the simulation ended: {said}")

    def params() -> dict[str, np.ndarray]:
        ask("save")
        with np.load(home / "params.npz") as saved:
            return dict(saved)

    def close() -> None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        folder.cleanup()

    return Contender(lambda: ask("round"), params, close)


def _tail(path: pathlib.Path) -> str:
    return " ".join(path.read_text(errors="replace").split()[-60:])

"""The table of claims, how it is run, and its page; studies are made up here."""

import importlib.util
import itertools
import json
import signal
import subprocess
import sys
import time

import pytest

from qoejax.run import claims, claims_page, study
from qoejax.run.claims import BROKEN, CLAIMS, MISSING, Asked, Claim, plan
from qoejax.run.errors import RunError
from qoejax.run.study import FAILS, HOLDS, UNTESTED, Outcome

ELSEWHERE = {"decisions", "early", "uncertainty"}


def asked(minutes=60.0, seeds=5):
    return Asked(plan(minutes, seeds), "data", {}, "python -m experiments.claims")


def table(*names):
    return {n: Claim(f"{n} | is so.", "tried", "it is", n, 1 / len(names)) for n in names}


def test_every_claim_is_in_the_table():
    assert set(CLAIMS) == {
        "precision", "shortcut", "generalises", "latency", "early", "mos", "joint", "decisions",
        "federated", "protection", "uncertainty", "needed",
    }  # fmt: skip
    assert sum(c.share for c in CLAIMS.values()) == pytest.approx(1.0)
    for name, claim in CLAIMS.items():
        assert all(isinstance(text, str) and text for text in claim if text is not claim.share)
        assert claim.passes.endswith("."), name
    own = {c.run for c in CLAIMS.values()} - ELSEWHERE
    assert len(own) == len(CLAIMS) - len(ELSEWHERE)
    for module in own:
        assert importlib.util.find_spec(f"qoejax.run.{module}"), module
        assert callable(claims.study_of(module))


def test_more_budget_is_never_less_work():
    plans = [plan(float(m), 5) for m in (5, 10, 20, 30, 45, 60)]
    assert plans[0] == (5, pytest.approx(2 / 57), 2)  # 3 minutes are fixed
    assert plans[-1] == (60, 1.0, 5)
    for less, more in itertools.pairwise(plans):
        assert less.scale < more.scale
        assert less.seeds <= more.seeds


@pytest.mark.parametrize(("minutes", "seeds"), [(4.0, 5), (61.0, 5), (30.0, 1)])
def test_a_budget_that_cannot_be_is_refused(minutes, seeds):
    with pytest.raises(RunError, match=r"expected 5 to 60 minutes and 2 seeds or more"):
        plan(minutes, seeds)


def test_a_study_that_raises_loses_no_other(tmp_path):
    def raises(context):
        raise ValueError("no such thing | here")

    studies = {
        "first": lambda c: Outcome(HOLDS, "1 is above 0", [{"a": 1.0}]),
        "bad": raises,
        "odd": lambda c: Outcome("perhaps", "", []),
        "last": lambda c: Outcome(FAILS, "0 is not above 0", []),
    }
    found = claims.run(tmp_path, asked(), claims=table(*studies), find=studies.__getitem__)
    assert {k: found[k] for k in claims_page.ORDER} == {
        HOLDS: 1, FAILS: 1, UNTESTED: 0, BROKEN: 2, MISSING: 0,
    }  # fmt: skip
    assert found["broken"] == ["bad", "odd"]
    page = (tmp_path / "claims.md").read_text()
    assert "**failed to run** | ValueError: no such thing \\| here" in page
    assert "ValueError: no such thing" in (tmp_path / "bad" / "error.txt").read_text()
    assert "1 holds, 1 fails, 2 failed to run" in page


def test_an_interrupted_run_goes_on(tmp_path):
    done, stop = [], [True]

    def interrupted(context):
        for seed in range(context.seeds):
            if seed == 3 and stop:
                stop.clear()
                raise KeyboardInterrupt
            study.once(context.folder, {"seed": seed}, lambda seed=seed: done.append(seed))
        return Outcome(HOLDS, "all done", [])

    ask = lambda: claims.run(  # noqa: E731
        tmp_path, asked(), claims=table("one"), find=lambda name: interrupted
    )
    with pytest.raises(KeyboardInterrupt):
        ask()
    assert not (tmp_path / "claims.md").exists()
    assert ask()[HOLDS] == 1
    assert done == [0, 1, 2, 3, 4]


def test_time_of_a_killed_session_counts_to_its_last_unit(tmp_path):
    folder = tmp_path / "one"
    study.once(folder, {"seed": 0}, lambda: 1)
    since = (folder / next(iter(p.name for p in folder.iterdir()))).stat().st_mtime - 100
    (folder / "clock.json").write_text(json.dumps({"seconds": 7.0, "running_since": since}))
    find = lambda name: lambda context: Outcome(HOLDS, "", [])  # noqa: E731
    claims.run(tmp_path, asked(), claims=table("one"), find=find)
    kept = json.loads((folder / "outcome.json").read_text())
    assert kept["seconds"] == pytest.approx(107, abs=5)


def test_the_page_shows_what_is_kept_of_this_plan_only(tmp_path):
    both = table("one", "two")
    find = lambda name: lambda context: Outcome(UNTESTED, f"{context.seeds} seeds", [])  # noqa: E731
    claims.run(tmp_path, asked(), ["one"], claims=both, find=find)
    found = claims.run(tmp_path, asked(), ["two"], claims=both, find=find)
    assert (found[UNTESTED], found[MISSING]) == (2, 0)
    found = claims.run(tmp_path, asked(minutes=30.0), ["two"], claims=both, find=find)
    assert (found[UNTESTED], found[MISSING]) == (1, 1)
    with pytest.raises(RunError, match=r"no claim is called 'three': expected some of one, two"):
        claims.run(tmp_path, asked(), ["three"], claims=both, find=find)


RESULT = {
    "command": "python -m experiments.claims --budget=30 --workdir=W",
    "plan": {"minutes": 30.0, "scale": 0.5, "seeds": 5},
    "environment": {
        "cores": 2, "machine": "x86_64", "devices": ["cpu", "cpu"], "git_commit": "0" * 40,
        "git_dirty": False, "packages": {"jax": "0.10.2"},
    },
    "overview": "overview.png",
    "claims": {
        "one": {
            "verdict": FAILS, "reason": "-0.01 is below 0", "seconds": 90.0, "figures": ["a.png"],
            "rows": [{"model": "a|b", "score": 0.5}, {"gap": [0.1, 0.0, 0.2], "mean": [1.0, 0.5]}],
        },
        "two": {"verdict": MISSING, "reason": "", "seconds": None, "figures": [], "rows": []},
    },
}  # fmt: skip


def test_the_page_reads_as_it_should():
    links = {"overview": ["overview.png"], "one": ["one/a.png"]}
    page = claims_page.markdown(table("one", "two"), RESULT, links)
    assert page.startswith("# The claims, tried\n")
    expected = """\
| [one | is so.](#one) | **fails** | -0.01 is below 0 |
| [two | is so.](#two) | **not run** |  |

In all: 1 fails, 1 not run.

![All models on all datasets](overview.png)
"""
    assert expected in page
    expected = """\
<a id="one"></a>
## one | is so.

- **Verdict**: fails. -0.01 is below 0
- **Experiment**: tried
- **Passes if**: it is
- **Needs**: simulated rows
- **Run**: `--only=one`; 90 s of 900 s

| model | score | gap | mean |
|---|---|---|---|
| a\\|b | 0.5 | – | – |
| – | – | 0.100 (0.000 to 0.200) | 1.000 ± 0.500 |

![one](one/a.png)
"""
    assert expected in page
    assert "Budget 30 minutes, 5 seeds, scale 0.5 of the full work; 1.5 minutes were used" in page
    assert "Below full scale" in page
    full = {**RESULT, "plan": {"minutes": 60.0, "scale": 1.0, "seeds": 5}}
    assert "Below full scale" not in claims_page.markdown(table("one", "two"), full, links)


def test_figures_go_with_a_page_elsewhere(tmp_path):
    for name in ("overview.png", "one/a.png"):
        (tmp_path / "w" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "w" / name).write_bytes(name.encode())
    page = tmp_path / "docs" / "claims.md"
    claims_page.write(tmp_path / "w", page, table("one", "two"), RESULT, figures="figures")
    text = page.read_text()
    for name in ("claims-overview.png", "claims-one-a.png"):
        assert f"(figures/{name})" in text
    assert (page.parent / "figures" / "claims-one-a.png").read_bytes() == b"one/a.png"


def test_the_command_fails_where_a_study_was_broken():
    assert claims.failed({"broken": []}) == ""
    assert "two, three" in claims.failed({"broken": ["two", "three"]})


@pytest.mark.slow
def test_the_command_survives_a_kill(tmp_path):
    """The real thing at the smallest budget, killed once in the middle of its work."""
    call = [
        sys.executable, "-m", "experiments.claims", f"--workdir={tmp_path}", "--budget=5",
        "--only=needed,shortcut",
    ]  # fmt: skip
    first = subprocess.Popen(call, stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "fits").glob("*.json"))) < 2:
        assert first.poll() is None
        time.sleep(0.5)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = {p: p.stat().st_mtime for p in (tmp_path / "fits").glob("*.json")}
    done = subprocess.run(call, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert sum(summary[v] for v in study.VERDICTS) == 2
    assert {p: p.stat().st_mtime for p in before} == before
    assert len(before) < len(list((tmp_path / "fits").glob("*.json")))
    page = (tmp_path / "claims.md").read_text()
    assert (tmp_path / "needed" / "ablations.png").exists()
    assert "![needed](needed/ablations.png)" in page

"""The claims and what became of them, as a page for people. Markdown."""

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from qoejax.run import files, study

BROKEN, MISSING = "failed to run", "not run"
"""What stands for a verdict where there is none."""

ORDER = (*study.VERDICTS, BROKEN, MISSING)


def counts(records: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Claims by verdict, in ``ORDER``; none is left out."""
    return {v: sum(r["verdict"] == v for r in records.values()) for v in ORDER}


def write(
    workdir: pathlib.Path,
    path: pathlib.Path,
    claims: Mapping[str, Any],
    result: Mapping[str, Any],
    figures: str = "",
) -> None:
    """Writes the page; with ``figures``, copies of what it shows into that folder beside it."""
    shown = {} if result["overview"] is None else {"overview": [result["overview"]]}
    for name, record in result["claims"].items():
        shown[name] = [f"{name}/{pathlib.Path(f).name}" for f in record["figures"]]
    links = {name: list(each) for name, each in shown.items()}
    if figures:
        folder = files.writable_folder(path.parent / figures, "folder of figures")
        for name, each in shown.items():
            copies = [f"claims-{f.replace('/', '-')}" for f in each]
            for source, copy in zip(each, copies, strict=True):
                shutil.copyfile(workdir / source, folder / copy)
            links[name] = [f"{figures}/{copy}" for copy in copies]
    files.write_bytes(path, markdown(claims, result, links).encode())


def markdown(
    claims: Mapping[str, Any], result: Mapping[str, Any], links: Mapping[str, Sequence[str]]
) -> str:
    """The page. ``links`` are the figures of each claim, and of ``overview``, as it shall show."""
    lines = ["# The claims, tried", "", *_intro(result), ""]
    records = result["claims"]
    lines += ["| claim | verdict | what decides |", "|---|---|---|"]
    for name, claim in claims.items():
        record = records[name]
        lines.append(
            f"| [{claim.says}](#{name}) | **{record['verdict']}** | {_cell(record['reason'])} |"
        )
    total = ", ".join(f"{n} {verdict}" for verdict, n in counts(records).items() if n)
    lines += ["", f"In all: {total}.", ""]
    if links.get("overview"):
        lines += [f"![All models on all datasets]({links['overview'][0]})", ""]
        lines += ["*Every model that was compared: means over seeds, bars are 95 % intervals.*", ""]
    for name, claim in claims.items():
        lines += _section(name, claim, records[name], result, links.get(name, ()))
    return "\n".join(lines).rstrip() + "\n"


def _intro(result: Mapping[str, Any]) -> list[str]:
    plan, where = result["plan"], result["environment"]
    spent = sum(r["seconds"] or 0.0 for r in result["claims"].values())
    devices = ", ".join(sorted(set(where["devices"])))
    text = [
        "The paper that proposes the framework prints claims, and no numbers beside them. Each is "
        "tried here by an experiment that could fail. Verdicts are computed from the figures: "
        "*holds*, *fails*, or *not testable here*.",
        "",
        f"    {result['command']}",
        "",
        f"Budget {plan['minutes']:g} minutes, {plan['seeds']} seeds, scale {plan['scale']:.3g} of "
        f"the full work; {spent / 60:.1f} minutes were used on {where['cores']} cores "
        f"({where['machine']}, {devices}), jax {where['packages']['jax']}, commit "
        f"{(where['git_commit'] or 'unknown')[:12]}{' with changes' if where['git_dirty'] else ''}."
        " A fit that several claims use is counted where it was made first.",
    ]
    if plan["scale"] < 1:
        text += [
            "",
            "**Below full scale there are fewer training rows, rounds, contenders and seeds: "
            "intervals are wide, and a claim that fails here may hold with more work.**",
        ]
    return text


def _section(
    name: str,
    claim: Any,
    record: Mapping[str, Any],
    result: Mapping[str, Any],
    figures: Sequence[str],
) -> list[str]:
    budget = 60 * result["plan"]["minutes"] * claim.share
    took = "" if record["seconds"] is None else f"{record['seconds']:.0f} s of {budget:.0f} s"
    lines = [
        f'<a id="{name}"></a>',
        f"## {claim.says}",
        "",
        f"- **Verdict**: {record['verdict']}. {record['reason']}".rstrip(),
        f"- **Experiment**: {claim.experiment}",
        f"- **Passes if**: {claim.passes}",
        f"- **Needs**: {claim.needs}",
        f"- **Run**: `--only={name}`" + (f"; {took}" if took else ""),
        "",
    ]
    if record.get("error"):
        last = record["error"].strip().splitlines()[-1]
        lines += [f"The study raised `{_cell(last)}`.", ""]
    lines += table(record["rows"], record.get("shown", ()))
    for figure in figures:
        lines += [f"![{name}]({figure})", ""]
    return lines


def table(rows: Sequence[Mapping[str, Any]], shown: Sequence[str] = ()) -> list[str]:
    """Rows as a Markdown table, over all their keys if none are named; missing cells are dashes."""
    if not rows:
        return []
    keys = shown or list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(map(_cell, keys))} |", "|---" * len(keys) + "|"]
    lines += [f"| {' | '.join(_cell(row.get(key)) for key in keys)} |" for row in rows]
    return [*lines, ""]


def _cell(value: Any) -> str:
    """A number to four digits; [mean, half] as mean ± half; [mean, low, high] as an interval."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple) and all(isinstance(v, float | int) for v in value):
        if len(value) == 2:
            return f"{value[0]:.3f} ± {value[1]:.3f}"
        if len(value) == 3:
            return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"
    return " ".join(str(value).replace("|", "\\|").split())

"""Judgement: what the checks found, why it matters, and where the line is. NumPy only.

A finding is a ``leak`` when it crosses its rule's limit, else a ``note``. Ten points (0.10 of
macro-F1 or PLCC) is the one margin: a rule that should fail may come no closer to a model, and a
column that may know nothing may gain no more over chance.
"""

from typing import NamedTuple

import numpy as np

from qoejax.data.audit import forest, neighbours, order, sentinels, windows
from qoejax.data.audit.frame import Column, Frame, score
from qoejax.data.audit.sentinels import Rule

MARGIN = 0.10
NEAR_CONSTANT = 0.999
EQUAL_ROWS = 0.001
SAME_SCALE = 0.5
LEAST_ROWS = 100
"""Fewer labelled rows than this are too few to score a rule on."""

LEAK, NOTE = "leak", "note"


class Finding(NamedTuple):
    """One thing found.

    ``scope`` is "default" for a column that a model sees, "other" for one it does not see, "split"
    for rows and splits. ``limit`` is the line that ``value`` is held against, NaN where there is
    none.
    """

    severity: str
    rule: str
    scope: str
    column: str
    value: float
    limit: float
    reason: str


class Scores(NamedTuple):
    """Figures that findings are judged by; all on rows that were not learnt from.

    ``constant`` always says the commonest class, ``chance`` is the most that knowing nothing gives.
    ``reference`` is the forest on the default columns, ``shuffled`` the same after the training
    targets were permuted. ``grain`` is the rule on the window size
    that the default columns' flag means betray, NaN where they betray none.
    """

    metric: str
    constant: float
    chance: float
    reference: float
    shuffled: float
    rules: tuple[Rule, ...]
    neighbours: neighbours.Neighbours
    grain: float

    def best(self, frame: Frame) -> tuple[str, float]:
        """The best sentinel on what a model sees: its name and its score."""
        seen = {c.name for c in frame.default}
        options = {f"{r.column} ({r.how})": r.best for r in self.rules if r.column in seen}
        options["nearly equal row"] = self.neighbours.twin_score
        if np.isfinite(self.grain):
            options["window size"] = self.grain
        return max(options.items(), key=lambda item: item[1])


def measure(frame: Frame, *, seed: int = 0) -> Scores:
    """Runs every sentinel and the reference."""
    return Scores(
        metric=frame.target.metric,
        constant=sentinels.constant(frame),
        chance=sentinels.chance(frame),
        reference=forest.reference(frame, frame.default, seed=seed),
        shuffled=forest.reference(frame, frame.default, seed=seed, shuffle=True),
        rules=sentinels.rules(frame),
        neighbours=neighbours.neighbours(frame, seed=seed),
        grain=_grain_score(frame),
    )


def _grain_score(frame: Frame) -> float:
    grains = windows.grain(frame.default) if frame.target.names else None
    if grains is None:
        return float("nan")

    def lookup(side: tuple[np.ndarray, np.ndarray], known: np.ndarray) -> np.ndarray:
        return sentinels.by_cell(frame.target, grains[side[0]], grains[side[1]], known)

    return score(frame.target, *sentinels.try_all(frame, lookup))


def judge(frame: Frame, scores: Scores) -> list[Finding]:
    """Findings on every column and on the split, leaks first."""
    of_column = [f for c, r in zip(frame.columns, scores.rules, strict=True)
                 for f in _column(frame, scores, c, r)]  # fmt: skip
    return ranked([*of_column, *_split(frame, scores), *_grain(frame, scores)])


def ranked(found: list[Finding]) -> list[Finding]:
    """Leaks first, then by value."""
    return sorted(found, key=lambda f: (f.severity != LEAK, -f.value))


def scope_of(column: Column) -> str:
    """The scope of a finding on a column."""
    return "default" if column.default else "other"


def _column(frame: Frame, scores: Scores, column: Column, rule: Rule) -> list[Finding]:
    skill = rule.best - scores.chance
    checks = [_knows_too_much, _same_scale] if frame.target.names == () else [_dominates, _groups]
    out = [f for check in checks for f in check(frame, scores, column, rule)]
    numbered = order.is_row_number(column)
    gains = {
        "identity": (
            order.is_identity(column) and not numbered,
            "{} distinct names tell the target apart: who, not what",
        ),
        "row number": (numbered, "{} numbers in a row: the place in a file that was not shuffled"),
        "time": (
            order.is_clock(column),
            "holds an absolute time ({:.0%} pure blocks): when, not what",
        ),
    }
    for name, (holds, reason) in gains.items():
        if holds:
            detail = order.block_purity(frame, column) if name == "time" else len(column.value)
            severity = LEAK if skill >= MARGIN else NOTE
            why, where = reason.format(detail), scope_of(column)
            out.append(Finding(severity, name, where, column.name, skill, MARGIN, why))
    return out


def _dominates(frame: Frame, scores: Scores, column: Column, rule: Rule) -> list[Finding]:
    """One column of many comes close to a model of all default ones."""
    limit = scores.reference - MARGIN
    if rule.best < max(limit, scores.chance + MARGIN):
        return []
    reason = (
        f"a {rule.how} of this column alone is within {MARGIN:.0%} of a forest on all default "
        f"columns ({scores.reference:.3f})"
    )
    alone = len(frame.default) == 1 and column.default
    severity, where = NOTE if alone else LEAK, scope_of(column)
    return [Finding(severity, "single column", where, column.name, rule.best, limit, reason)]


def _groups(frame: Frame, scores: Scores, column: Column, rule: Rule) -> list[Finding]:
    """A few constants that stand for groups of classes."""
    del scores, rule
    if windows.repeats_label(frame, column):
        reason = "has one value for every class: the label by another name"
        return [Finding(LEAK, "label copy", scope_of(column), column.name, 1.0, 1.0, reason)]
    groups = windows.class_groups(frame, column)
    if groups is None:
        return []
    sizes = [len(c) for c in groups.classes]
    values = [", ".join(f"{v:g}" for v in held) for held in groups.values]
    reason = (
        f"is {values[0]} in {sizes[0]} classes and {values[1]} in {sizes[1]} others, hardly ever "
        "both: the size of the window that records were cut in"
    )
    share = sum(sizes) / len(np.unique(frame.target.value))
    where, limit = scope_of(column), windows.LEAST_SHARE
    return [Finding(LEAK, "window size", where, column.name, share, limit, reason)]


def _knows_too_much(frame: Frame, scores: Scores, column: Column, rule: Rule) -> list[Finding]:
    """A single cause may rule a score by right: close to the reference is worth a look, no more."""
    del frame
    limit = scores.reference - MARGIN
    if rule.best < max(limit, MARGIN):
        return []
    reason = f"a {rule.how} of this column alone is close to a forest ({scores.reference:.3f})"
    return [Finding(NOTE, "single column", scope_of(column), column.name, rule.best, limit, reason)]


def _same_scale(frame: Frame, scores: Scores, column: Column, rule: Rule) -> list[Finding]:
    """Another answer of the same person: the target's own few values, and correlated with it."""
    del scores, rule
    scale = np.unique(frame.target.value)
    if column.nominal or len(scale) > windows.CONSTANTS or not 3 <= len(column.value) <= len(scale):
        return []
    if not np.isin(column.value, scale).all():
        return []
    plcc = float(np.corrcoef(column.numbers, frame.target.value)[0, 1])
    if plcc < SAME_SCALE:
        return []
    reason = "is on the target's own scale and follows it: a second answer of the same person"
    return [Finding(LEAK, "second rating", scope_of(column), column.name, plcc, SAME_SCALE, reason)]


def _split(frame: Frame, scores: Scores) -> list[Finding]:
    """Rows on both sides, and labels that travel some other way."""
    twins, gain = scores.neighbours, scores.shuffled - scores.chance
    out = []
    if twins.equal > 0:
        # People who rate the same thing are no twins: each has an opinion.
        severity = LEAK if twins.equal > EQUAL_ROWS and frame.target.names else NOTE
        reason = "share of test rows that some training row equals"
        out.append(Finding(severity, "equal rows", "split", "", twins.equal, EQUAL_ROWS, reason))
    if twins.near > twins.equal:
        reason = (
            f"share of test rows with a training row within {neighbours.NEAR:g} in every column's "
            f"ranks; its target scores {twins.twin_score:.3f}"
        )
        nothing = float("nan")
        out.append(Finding(NOTE, "nearly equal rows", "split", "", twins.near, nothing, reason))
    if gain >= MARGIN:
        reason = "shuffled training targets still predict: they travel another way"
        out.append(Finding(LEAK, "label shuffle", "split", "", gain, MARGIN, reason))
    return out


def _grain(frame: Frame, scores: Scores) -> list[Finding]:
    """The window size that means of flags betray, all default columns together."""
    if not np.isfinite(scores.grain):
        return []
    grains = windows.grain(frame.default)
    assert grains is not None  # The score is finite only where there are grains.
    fine = windows.by_class(grains, frame)
    fewest, most = min(fine, key=fine.__getitem__), max(fine, key=fine.__getitem__)
    if fine[most] - fine[fewest] < MARGIN:
        return []
    limit = scores.reference - MARGIN
    severity = LEAK if scores.grain >= max(limit, scores.chance + MARGIN) else NOTE
    reason = (
        f"flag means off the grid of 0.1: {fine[most]:.0%} of {most} rows, {fine[fewest]:.0%} of "
        f"{fewest} rows; the grain alone scores {scores.grain:.3f}"
    )
    return [Finding(severity, "grain of means", "default", "", scores.grain, limit, reason)]


def constants(frame: Frame) -> list[Finding]:
    """Columns that hold one value, or hardly another."""
    out = []
    for c in frame.columns:
        share = float(np.bincount(c.code).max(initial=0) / max(1, len(c.code)))
        if share >= NEAR_CONSTANT:
            reason = "holds one value only"
            if len(c.value) > 1:
                reason = f"one value in {share:.2%} of rows"
            out.append(Finding(NOTE, "constant", scope_of(c), c.name, share, NEAR_CONSTANT, reason))
    return out

"""Which captures a folder has, and the class, group and side of each (host).

A folder says so itself, in one of three ways:

``manifest.csv``  a line a file: ``file,label`` and, as wanted, ``group`` and ``split``
``rule.json``     how names tell it: ``pattern``, a regular expression with the groups ``label`` and
                  perhaps ``group``; ``labels``, from what stands in a name to the class (without
                  it, the text is the class); ``test``, the groups held out
neither           names are ``GROUP__LABEL_NN.pcap`` or ``LABELNN.pcap``, and labels those of
                  ``LABELS``

Files that none of this names are passed over, and listed.
"""

import csv
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from qoejax.data.errors import DataError
from qoejax.data.framing import SUFFIXES, is_capture
from qoejax.data.schema.ciciot2023 import FAMILIES

BENIGN = "benign"
MANIFEST, RULE = "manifest.csv", "rule.json"

TEST_SHARE = 0.25
"""Of the groups, where none are named."""

CUT = (0.78, 0.8)
"""Where the only captures of a class are cut: training ends at the first, test begins at the
second; the packets between are a gap."""

_TESTBED = ("scan", "bruteforce", "c2", "flood", "slow_dos", "mqtt_abuse")
LABELS: dict[str, str] = {name: name for name in (BENIGN, *_TESTBED)}
LABELS |= {"dos_flood": "flood", "normal": BENIGN}
LABELS |= {fine: fine for fines in FAMILIES.values() for fine in fines}
LABELS["BenignTraffic"] = BENIGN
"""Labels that a name may have, and the class of each: those of the MQTT testbed and CICIoT2023."""


class Rule(NamedTuple):
    """How names tell the class and the group; see the module's text."""

    pattern: re.Pattern[str]
    labels: Mapping[str, str] | None
    test: tuple[str, ...]


class Capture(NamedTuple):
    """A labelled file; ``split`` is "train", "test", or "" where nobody has said."""

    path: pathlib.Path
    label: str
    group: str
    split: str = ""


class Piece(NamedTuple):
    """A capture, or a part of one, on its side."""

    capture: Capture
    split: str
    part: tuple[float, float]


class Folder(NamedTuple):
    """The labelled captures of a folder, by name, and the names of the files passed over."""

    captures: tuple[Capture, ...]
    passed_over: tuple[str, ...]


def _default_rule() -> Rule:
    known = "|".join(re.escape(name) for name in sorted(LABELS, key=len, reverse=True))
    text = rf"(?:(?P<group>.+)__)?(?P<label>{known})(?:_[a-z]*\d+|\d+)?"
    return Rule(re.compile(text, re.IGNORECASE), LABELS, ())


DEFAULT_RULE = _default_rule()


def find(folder: pathlib.Path) -> Folder:
    """The captures of a folder and of those below it.

    Raises:
      DataError: there is none that is labelled, none that is benign, or a manifest or rule that is
        not in form; names the file, and the line or key.
    """
    inside = sorted(p for p in folder.rglob("*") if p.is_file() and is_capture(p))
    inside = [p for p in inside if not any(part.startswith(".") for part in _inside(p, folder))]
    if not inside:
        raise DataError(f"{folder}: holds no capture; expected files in {', '.join(SUFFIXES)}.")
    if (folder / MANIFEST).is_file():
        captures = _manifest(folder / MANIFEST, inside)
    else:
        rule = _rule(folder / RULE) if (folder / RULE).is_file() else DEFAULT_RULE
        captures = [c for c in (_named(path, rule) for path in inside) if c]
        if gone := set(rule.test) - {c.group for c in captures}:
            raise DataError(
                f"{folder / RULE}: 'test' names {', '.join(map(repr, sorted(gone)))}, but no "
                "labelled capture is of such a group."
            )
    listed = {c.path for c in captures}
    passed_over = tuple(p.relative_to(folder).as_posix() for p in inside if p not in listed)
    if not captures:
        raise DataError(
            f"{folder}: no capture has a name that tells its label, such as {inside[0].name}; "
            f"expected GROUP__LABEL_NN.pcap with a known label, a {MANIFEST} or a {RULE}."
        )
    if BENIGN not in {c.label for c in captures}:
        found = ", ".join(sorted({c.label for c in captures}))
        raise DataError(f"{folder}: no capture is labelled {BENIGN!r}; there are {found}.")
    return Folder(tuple(captures), passed_over)


def label_of(path: pathlib.Path) -> str | None:
    """The class that a file's folder or name tells, None where neither does.

    Raises:
      DataError: the folder's manifest or rule is not in form.
    """
    folder = path.parent
    if (folder / MANIFEST).is_file():
        inside = sorted(p for p in folder.rglob("*") if p.is_file() and is_capture(p))
        return next((c.label for c in _manifest(folder / MANIFEST, inside) if c.path == path), None)
    rule = _rule(folder / RULE) if (folder / RULE).is_file() else DEFAULT_RULE
    found = _named(path, rule)
    return found.label if found else None


def _inside(path: pathlib.Path, folder: pathlib.Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts


def _stem(path: pathlib.Path) -> str:
    name = path.name
    end = next(
        suffix for suffix in sorted(SUFFIXES, key=len)[::-1] if name.lower().endswith(suffix)
    )
    return name[: -len(end)]


def _named(path: pathlib.Path, rule: Rule) -> Capture | None:
    stem = _stem(path)
    match = rule.pattern.fullmatch(stem)
    if not match or not match["label"]:
        return None
    text = match["label"]
    labels = rule.labels
    if labels is not None:
        label = {name.lower(): label for name, label in labels.items()}.get(text.lower())
        if label is None:
            return None
        text = label
    group = match.groupdict().get("group") or stem
    split = ("test" if group in rule.test else "train") if rule.test else ""
    return Capture(path, text, group, split)


def _rule(path: pathlib.Path) -> Rule:
    known = ("pattern", "labels", "test")
    form = DataError(
        f"{path}: expected 'pattern' with a group 'label', and perhaps 'labels' (text to text) "
        "and 'test' (a list of groups)."
    )
    try:
        given = json.loads(path.read_text("utf-8"))
        pattern = re.compile(given["pattern"])
        labels, test = given.get("labels"), given.get("test", [])
        good = (
            set(given) <= set(known)
            and "label" in pattern.groupindex
            and (labels is None or all(isinstance(v, str) and v for v in labels.values()))
            and isinstance(test, list)
            and all(isinstance(name, str) for name in test)
        )
    except (OSError, ValueError, re.error) as e:
        raise DataError(f"{path}: cannot be read as a rule ({e}).") from e
    except (KeyError, TypeError, AttributeError) as e:
        raise form from e
    if not good:
        raise form
    return Rule(pattern, labels, tuple(test))


def _manifest(path: pathlib.Path, inside: list[pathlib.Path]) -> list[Capture]:
    there = {p.relative_to(path.parent).as_posix(): p for p in inside}
    captures: list[Capture] = []
    seen: dict[str, int] = {}
    sides: dict[str, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = {"file", "label"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path}: lacks the column {', '.join(map(repr, sorted(missing)))}."
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                cell = {k: (row.get(k) or "").strip() for k in ("file", "label", "group", "split")}
                name = cell["file"]
                if name not in there:
                    raise DataError(f"{where}: {name!r} is no capture of this folder.")
                if name in seen:
                    raise DataError(f"{where}: {name!r} is there already in line {seen[name]}.")
                if not cell["label"]:
                    raise DataError(f"{where}: {name!r} has no label.")
                if cell["split"] not in ("", "train", "test"):
                    raise DataError(
                        f"{where}: split is {cell['split']!r}; expected train, test or nothing."
                    )
                group = cell["group"] or _stem(there[name])
                if sides.setdefault(group, cell["split"]) != cell["split"]:
                    raise DataError(f"{where}: group {group!r} is in more than one split.")
                seen[name] = reader.line_num
                captures.append(Capture(there[name], cell["label"], group, cell["split"]))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"{path}: cannot be read as a manifest ({e}).") from e
    return sorted(captures, key=lambda c: c.path)


def sides(captures: tuple[Capture, ...]) -> list[Piece]:
    """Each capture on its side: whole groups, so that no capture round is on both.

    Groups that are named for a side go there. Where none is named for the test side, about
    ``TEST_SHARE`` of the groups go there: first those that bring it most new classes, then those
    that have most classes, none that would take a class away from training; ties are broken by a
    hash of the name. A class that no
    other group could test is cut in time: the end of each of its captures is for the test.

    Raises:
      DataError: all groups are named for the same side.
    """
    named = {c.group: c.split for c in captures if c.split}
    free = sorted({c.group for c in captures} - set(named), key=_hash)
    classes = {g: {c.label for c in captures if c.group == g} for g in (*free, *named)}
    test = {g for g, split in named.items() if split == "test"}
    if not test:
        test = _chosen(free, list(named), classes)
    tested = set().union(*(classes[g] for g in test))
    pieces = []
    for capture in captures:
        if capture.group in test:
            pieces.append(Piece(capture, "test", (0.0, 1.0)))
        elif capture.label in tested or capture.split:
            pieces.append(Piece(capture, "train", (0.0, 1.0)))
        else:
            pieces.append(Piece(capture, "train", (0.0, CUT[0])))
            pieces.append(Piece(capture, "test", (CUT[1], 1.0)))
    for split in ("train", "test"):
        if split not in {p.split for p in pieces}:
            groups = ", ".join(sorted({c.group for c in captures}))
            raise DataError(f"no capture is left for the {split} split, of the groups {groups}.")
    return pieces


def _chosen(free: list[str], train: list[str], classes: dict[str, set[str]]) -> set[str]:
    """Groups for the test side, out of those that are free."""
    test: set[str] = set()
    wanted = round(TEST_SHARE * (len(free) + len(train)))
    while True:
        tested = set().union(*(classes[g] for g in test))
        left = [g for g in (*free, *train) if g not in test]
        worth = {}
        for g in free:
            others = set().union(*(classes[o] for o in left if o != g))
            if g not in test and classes[g] <= others:
                worth[g] = (len(classes[g] - tested), len(classes[g]))
        best = max(worth, key=worth.__getitem__, default=None)
        if best is None or (not worth[best][0] and len(test) >= wanted):
            return test
        test.add(best)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()

"""docs/threat-model.md names a test for each claim: every name is that of a test."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()


def named():
    """(file, test or "") of every reference; ``::test`` alone is of the file named before."""
    file = ""
    for path, test in re.findall(r"`(?:([a-z_/]+\.py))?(?:::(\w+))?`", TEXT):
        file = path or file
        if path or test:
            yield file, test


def test_every_claim_names_a_test_that_exists():
    found = list(named())
    assert len(found) > 40
    for file, test in found:
        source = (ROOT / "tests" / file).read_text()
        assert not test or f"def {test}(" in source, f"{file} has no {test}"


def test_every_threat_has_a_test_or_says_that_nothing_is_claimed():
    rows = re.findall(r"^\| (.+) \|$", TEXT.split("## Threats")[1].split("##")[0], re.M)[1:]
    assert len(rows) >= 20
    for row in rows:
        shown = row.split(" | ")[2]
        assert ".py" in shown or shown == "none", row

"""log.html: what a person is told."""

import re

from qoejax.run import logpage, verify
from tests.wire.log.helpers import write_run


def test_the_page_tells_rounds_participants_refusals_and_carries_the_leaves(tmp_path):
    count = [0]

    def tamper(index, data):
        del index
        count[0] += 1
        return data[:-1] if count[0] == 3 else data

    write_run(tmp_path / "log", rounds=3, tamper=tamper, revoke_after=1)
    told = logpage.write(tmp_path)
    page = (tmp_path / "log.html").read_text()
    report = verify.audit_run(tmp_path)
    assert told["problem"] == ""
    assert told["root"] == report.tree.root().hex()
    assert f'<code id="root">{told["root"]}</code>' in page
    assert {r["codes"] for r in told["rounds"]} == {"SIZE 1", "POLICY 1", "REVOKED 1"}
    assert sum(p["accepted"] for p in told["participants"]) == told["updates"] == 9
    assert sum(p["refused"] for p in told["participants"]) == told["refused"] == 3
    assert [p["revoked"] for p in told["participants"]].count(True) == 1
    for rnd in report.state.rounds:
        for member in rnd.members:
            assert f'data-entry="{member.entry}"' in page
    assert page.count("data-entry=") == 9 + 3
    assert told["leaves"] in page
    assert "No witness cosigned it" in page
    # Self-contained: nothing is fetched.
    assert not re.search(r"(src|href)=\"?(https?:)?//", page)
    assert "<link" not in page


def test_a_broken_log_says_what_is_broken(tmp_path):
    write_run(tmp_path / "log", rounds=1)
    path = tmp_path / "log" / "entries"
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    told = logpage.write(tmp_path)
    assert told["problem"].startswith("entry 0: ")
    assert "This log does not hold: entry 0: " in (tmp_path / "log.html").read_text()


def test_no_log_no_page(tmp_path):
    assert logpage.write(tmp_path) is None
    assert not (tmp_path / "log.html").exists()


def test_the_report_links_to_it(wired_run):
    report = (wired_run[0] / "report.html").read_text()
    assert '<a href="log.html">' in report
    assert logpage.facts(verify.audit_run(wired_run[0]))["root"] in report

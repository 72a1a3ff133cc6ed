import pytest

from qoejax.wire.log import policy
from qoejax.wire.log.errors import LogError
from tests.wire.log.helpers import key

V = [key(f"example.org/w{i}").verifier.vkey for i in range(5)]
LOG = key().verifier.vkey

# The example of tlog-policy, with two groups.
TEXT = f"""# who is trusted
log {LOG} https://example.org/log

witness X1 {V[0]} http://127.0.0.1:1
witness\tX2 {V[1]}
  witness X3 {V[2]}
group X-witnesses 2 X1 X2 X3
witness Y1 {V[3]}
witness Y2 {V[4]}
group Y-witnesses any Y1 Y2
group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def test_groups_make_a_quorum():
    found = policy.parse(TEXT)
    assert found.witnesses["X1"].url == "http://127.0.0.1:1"
    for signed, enough in (
        (("X1", "X2", "Y2"), True),
        (("X1", "X3", "Y1", "Y2"), True),
        (("X1", "Y1"), False),
        (("X1", "X2", "X3"), False),
        ((), False),
    ):
        assert policy.met(found, found.quorum, signed) == enough
    assert policy.met(found, policy.NONE, ())
    assert policy.parse(policy.render(found)) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("quorum X-and-Y\n", ""), "expected one quorum line"),
        (("quorum X-and-Y", "quorum Z"), "line 12: quorum 'Z' is neither"),
        (("quorum X-and-Y", "quorum X1\nquorum X2"), "line 13: a second quorum"),
        (("witness Y1", "witness X1"), "line 8: witness 'X1' appears twice"),
        ((V[3], V[0]), "line 8: witness 'Y1' appears twice"),
        (("group X-witnesses 2", "group X-witnesses 4"), "line 7: .*4 of 3 members"),
        (("2 X1 X2 X3", "2 X1 X1 X3"), "line 7: .*'X1' is unknown or used twice"),
        (("any Y1 Y2", "any Y1 X2"), "line 10: .*'X2' is unknown or used twice"),
        (("any Y1 Y2", "some Y1 Y2"), "line 10: 'some' is not a plain decimal"),
        (("group Y-witnesses", "group X1"), "line 10: group 'X1' appears twice"),
        (("# who", "who"), "line 1: expected 'log', 'witness'"),
        ((f"log {LOG}", f"log {LOG[:-4]}"), "line 2: "),
        (("log ", f"log {LOG}\nlog "), "line 3: log 'example.org/log' appears twice"),
    ],
)
def test_bad_policies_are_one_sentence_with_their_line(change, message):
    assert change[0] in TEXT
    with pytest.raises(LogError, match=message):
        policy.parse(TEXT.replace(*change))

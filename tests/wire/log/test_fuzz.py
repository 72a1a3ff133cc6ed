"""A short run of the fuzz target of the log's readers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoejax.wire.log.errors import LogError
from tests.fuzz import log_target

WHICH = st.integers(0, len(log_target.MAKERS) - 1)


def test_no_altered_text_or_entry_passes_for_another():
    found = log_target.mutations(400, seed=1)
    assert found["genuine"] == len(log_target.MAKERS) - 1  # a policy is not signed
    assert found["refused"] > 300
    assert found["accepted"] < 60  # they say the same as the genuine ones


@settings(max_examples=100, deadline=None)
@given(WHICH, st.binary(max_size=400))
def test_noise_is_refused(which, noise):
    assert log_target.read(which, noise) == "refused"


def test_the_target_notices_acceptance_and_other_errors(monkeypatch):
    genuine = log_target.target(0)
    monkeypatch.setattr(log_target, "target", lambda which: genuine._replace(known=None))
    with pytest.raises(AssertionError, match="target 0 accepted"):
        log_target.read(0, genuine.genuine)

    def broken(data):
        raise KeyError("a reader's own fault")

    monkeypatch.setattr(log_target, "target", lambda which: genuine._replace(read=broken))
    with pytest.raises(KeyError):
        log_target.read(0, genuine.genuine)
    assert issubclass(LogError, ValueError)

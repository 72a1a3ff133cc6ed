"""A short run of the fuzz target: whatever arrives, a code, and never acceptance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import envelope_target
from tests.wire import helpers

WHICH = st.integers(0, len(envelope_target.MAKERS) - 1)


def test_no_altered_message_is_accepted():
    codes = envelope_target.mutations(2_100, seed=1)
    assert sum(codes.values()) > 2_000
    assert "accepted" not in codes
    assert {"SIZE", "FORMAT", "DECRYPT", "SIGNATURE", "ROUND", "SENDER", "SUITE"} < set(codes)


@given(WHICH, st.binary(max_size=600))
def test_noise_is_refused(which, noise):
    assert envelope_target.receive(which, noise) != "accepted"


def test_the_target_notices_acceptance_and_other_errors(monkeypatch):
    genuine = envelope_target.target(0).genuine
    lax = envelope_target.Target(genuine, lambda data: None)
    monkeypatch.setattr(envelope_target, "target", lambda which: lax)
    assert envelope_target.receive(0, genuine) == "accepted"
    with pytest.raises(AssertionError, match="_update accepted"):
        envelope_target.receive(0, genuine[:-1])
    broken = envelope_target.Target(genuine, lambda data: data[9999])
    monkeypatch.setattr(envelope_target, "target", lambda which: broken)
    with pytest.raises(IndexError):
        envelope_target.receive(0, helpers.MODEL)

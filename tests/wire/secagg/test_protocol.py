"""Whole rounds: the sum is exact, whoever leaves and whenever."""

import functools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from qoejax.wire import keys, suites
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secagg import agreement, attendance, client, forms, graph, local, masks, plan
from tests.wire import helpers
from tests.wire.secagg import scene


@st.composite
def rounds(draw):
    """Members, degree, threshold, and who leaves at which step."""
    n = draw(st.integers(3, 9))
    degree = draw(st.sampled_from([k for k in range(2, n) if graph.valid(n, k)]))
    threshold = draw(st.integers(degree // 2 + 1 + degree % 2, degree + 1))
    threshold = max(2, threshold if 2 * threshold > degree + 1 else threshold + 1)
    leaving = draw(
        st.dictionaries(st.integers(0, n - 1), st.sampled_from(attendance.STEPS), max_size=n)
    )
    return n, degree, min(threshold, degree + 1), leaving


@given(rounds())
def test_the_sum_is_exact_or_the_round_fails_as_a_whole(drawn):
    n, degree, threshold, leaving = drawn
    names = list(scene.members(n))
    leaves = {names[i]: step for i, step in leaving.items()}
    facts = scene.make_plan(degree, threshold)
    try:
        vectors, done = scene.run(facts, n, leaves=leaves)
    except EnvelopeError as error:
        failed = error.code
    else:
        failed = None
    if failed:
        assert failed is Code.POLICY
        assert leaves
        return
    sent = {name for name in names if leaves.get(name) in (None, "confirm", "unmask")}
    assert set(done.survivors) <= sent
    np.testing.assert_array_equal(done.total, scene.plain(vectors, done.survivors))
    if not leaves:
        assert set(done.survivors) == set(names)
        assert not done.refused


@pytest.mark.parametrize("evidence", [0, 1])
def test_others_may_sign_for_the_members(evidence):
    """Inputs and evidence are signed beside, in any order; who gets no signature is out."""
    facts = scene.make_plan(7, 5, evidence=evidence)
    group = scene.members(8)
    vectors, begun, asked = scene.inputs(group), [], []
    failing = next(iter(group))

    def signing(identity, message, context):
        asked.append(identity.id)

        def wait():
            begun.append(len(asked))
            if identity.id == failing:
                raise EnvelopeError(Code.SIGN_EXHAUSTED, "no signature today")
            return identity.sign(message, context), 100.0

        return wait

    opened = local.begin(scene.server(), facts, group)
    done = local.finish(opened, vectors, signing=signing)
    assert set(asked[:8]) == set(group)
    assert begun[0] == 8  # all were asked for before the first was waited for
    assert len(asked) == (15 if evidence else 8)
    assert done.refused[failing].code is Code.SIGN_EXHAUSTED
    assert set(done.survivors) == set(group) - {failing}
    np.testing.assert_array_equal(done.total, scene.plain(vectors, done.survivors))
    each = 200.0 if evidence else 100.0
    assert all(each < done.seconds[name] < each + 50 for name in done.survivors)
    assert done.steps["mask"] > 700


@pytest.mark.parametrize("evidence", [0, 1])
@pytest.mark.parametrize("step", attendance.STEPS)
def test_two_of_eight_leave_at_any_step(step, evidence):
    names = list(scene.members(8))
    facts = scene.make_plan(7, 5, evidence=evidence)
    vectors, done = scene.run(facts, 8, leaves=dict.fromkeys(names[:2], step))
    counted = names if step in ("confirm", "unmask") else names[2:]
    assert set(done.survivors) == set(counted)
    np.testing.assert_array_equal(done.total, scene.plain(vectors, counted))
    assert set(done.confirmed) == set(names[2:] if step != "unmask" else names)


def test_a_sparse_graph_survives_members_that_leave_at_every_step():
    names = list(scene.members(24))
    leaves = {names[4 * i]: step for i, step in enumerate(attendance.STEPS)}
    vectors, done = scene.run(scene.make_plan(12, 7), 24, leaves=leaves)
    assert len(done.survivors) == 24 - 4
    np.testing.assert_array_equal(done.total, scene.plain(vectors, done.survivors))


def test_too_many_leave_and_nothing_is_opened():
    names = list(scene.members(6))
    for step in attendance.STEPS:
        with pytest.raises(EnvelopeError) as caught:
            scene.run(scene.make_plan(5, 4), 6, leaves=dict.fromkeys(names[:3], step))
        assert caught.value.code is Code.POLICY


def test_fewer_survivors_than_the_plan_wants():
    names = list(scene.members(6))
    facts = scene.make_plan(5, 4, least=6)
    with pytest.raises(EnvelopeError, match="POLICY: 5 survivors: expected 6"):
        scene.run(facts, 6, leaves={names[0]: "input"})


def test_an_unknown_step_is_named():
    with pytest.raises(ValueError, match="no step 'lunch'"):
        scene.run(scene.make_plan(2, 2), 3, leaves={b"": "lunch"})


@functools.cache
def seen(number=0):
    """One honest round with every frame kept."""
    frames = {}

    def keep(step, name, frame):
        frames[step, name] = frame
        return frame

    vectors, done = scene.run(scene.make_plan(4, 3, number), 7, tamper=keep)
    return frames, vectors, done


def masked_words(frames, name):
    body = plan.unsealed(frames["input", name], 1)
    return np.frombuffer(body, masks.WORD, offset=64)


def test_edges_cancel_and_nothing_else_does():
    """All masked inputs add up to the sum and everybody's own mask, exactly."""
    frames, vectors, done = seen()
    total = sum(masked_words(frames, name).astype(object) for name in vectors)
    own = (total - done.total.astype(object)) % 2**32
    assert len(set(own.tolist())) > scene.LENGTH // 2  # PRG(b) of seven members, not zero
    for name in vectors:
        assert (masked_words(frames, name) != vectors[name]).mean() > 0.9


def test_masked_inputs_look_uniform():
    """Smoke test: of equal inputs, words spread evenly over the ring and over bits."""
    frames = {}

    def keep(step, name, frame):
        frames[step, name] = frame
        return frame

    facts = scene.make_plan(2, 2, length=4096)
    group = scene.members(3)
    zeros = dict.fromkeys(group, np.zeros(4096, np.uint32))
    done = local.run(scene.server(), facts, group, zeros, tamper=keep)
    assert not done.total.any()
    for name in group:
        words = masked_words(frames, name)
        assert scipy.stats.chisquare(np.bincount(words >> 26, minlength=64)).pvalue > 1e-4
        ones = np.unpackbits(words.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(32 * 4096)


def test_bytes_and_seconds_are_counted():
    _, vectors, done = seen()
    n, k, length = 7, 4, scene.LENGTH
    assert set(done.up.values()) == {local.upload(k, length)}
    assert set(done.seconds) == {*vectors, b""}
    assert all(s > 0 for s in done.seconds.values())
    assert all(v > n * 48 for v in done.down.values())


# Epochs.


def epoch_rounds(count, leaves=None, first=None):
    facts = scene.make_plan(4, 3)
    group = scene.members(7)
    vectors = scene.inputs(group)
    frames, outcomes, epoch = [], [], None
    for number in range(count):
        kept = {}

        def keep(step, name, frame, kept=kept):
            kept[step, name] = frame
            return frame

        now = facts._replace(round=number, first=0, announce=bytes([number]) * 32)
        out = local.run(
            scene.server(), now, group, vectors, epoch=epoch, tamper=keep,
            leaves=(leaves or {}).get(number),
        )  # fmt: skip
        epoch = out.epoch
        frames.append(kept)
        outcomes.append(out)
    return vectors, frames, outcomes


def test_an_epoch_agrees_once_and_never_uses_a_mask_twice():
    vectors, frames, outcomes = epoch_rounds(3)
    for out in outcomes:
        np.testing.assert_array_equal(out.total, scene.plain(vectors, vectors))
    assert {step for step, _ in frames[1]} == {"shares", "input", "confirm", "unmask"}
    assert set(outcomes[1].up.values()) == {local.upload(4, scene.LENGTH, fresh=False)}
    for name in vectors:  # the same input every time
        masked = np.stack([masked_words(f, name) for f in frames])
        assert all((masked[a] != masked[b]).mean() > 0.9 for a, b in ((0, 1), (0, 2), (1, 2)))
    epochs = outcomes[0].epoch.members
    names = [plan.digest(scene.make_plan(4, 3, i, first=0)) for i in range(3)]
    streams = {
        client.round_keys(edge, name).mask.expose()
        for one in epochs.values() for edge in one.edges.values() for name in names
    }  # fmt: skip
    assert len(streams) == 7 * 4 // 2 * 3  # both ends of an edge agree, rounds do not


def test_who_left_in_an_epoch_comes_back():
    names = list(scene.members(7))
    vectors, _, outcomes = epoch_rounds(3, {1: {names[0]: "input", names[1]: "shares"}})
    assert set(outcomes[1].survivors) == set(names[2:])
    assert set(outcomes[2].survivors) == set(names)
    for out in outcomes:
        np.testing.assert_array_equal(out.total, scene.plain(vectors, out.survivors))


def test_a_round_of_an_epoch_is_entered_once_and_in_order():
    _, _, outcomes = epoch_rounds(2)
    one = next(iter(outcomes[-1].epoch.members.values()))
    for number in (0, 1):
        with pytest.raises(EnvelopeError, match=r"ROUND: round \d: masks were used up to round 1"):
            client.share(one, scene.make_plan(4, 3, number, first=0))
    later, _, _ = client.share(one, scene.make_plan(4, 3, 2, first=0))
    assert later.last == 2
    with pytest.raises(EnvelopeError, match="ROUND"):
        client.share(later, scene.make_plan(4, 3, 2, first=0, announce=bytes(32)))
    for change in ({"first": 1}, {"degree": 2, "threshold": 2}, {"run": bytes(16)}):
        with pytest.raises(EnvelopeError, match="ROUND: the plan is of another epoch"):
            client.share(later, scene.make_plan(4, 3, 3, first=0)._replace(**change))


def test_keys_are_made_in_the_first_round_only():
    with pytest.raises(EnvelopeError, match="ROUND: keys of this epoch were agreed in round 0"):
        agreement.join(scene.identities(1)[0], scene.make_plan(4, 3, 1, first=0))


# Secrets.


def test_no_state_prints_a_secret():
    me, facts = scene.identities(40)[0], scene.make_plan(4, 3)
    joined, _ = agreement.join(me, facts)
    _, _, done = seen()
    one = done.epoch.members[me.id]
    later = scene.make_plan(4, 3, 1, first=0)
    _, sharing, _ = client.share(one, later)
    edge = next(iter(one.edges.values()))
    text = repr((joined, one, sharing, edge, done.epoch))
    secrets = [joined.secret, edge.secret, sharing.blind, *sharing.own, me.secret]
    for secret in secrets:
        value = secret.expose()
        assert repr(value[:32])[2:-1] not in text  # an X-Wing secret ends with its public key
        assert value.hex() not in text
    assert "<Secret of 32 bytes>" in text


def test_commitments_and_kinds_are_apart():
    name = bytes(32)
    one = forms.Secret(bytes(66))
    owner, holder = b"a" * 16, b"b" * 16
    made = {
        forms.commit(name, owner, holder, one), forms.commit(name, holder, owner, one),
        forms.commit(b"\1" * 32, owner, holder, one),
        forms.commit(name, owner, holder, forms.Secret(bytes(65) + b"\1")),
    }  # fmt: skip
    assert len(made) == 4


SEALED = [number for number, one in suites.SUITES.items() if one.sealed]


@pytest.mark.parametrize("number", SEALED, ids=hex)
def test_every_suite_with_a_kem_masks(number):
    """Keys, ciphertexts, boxes and signatures are the run's suite's; sums do not depend on it."""
    chosen = suites.SUITES[number]
    signer = helpers.signer_of(number)
    boss, *people = helpers.identities(signer, 5, chosen.scheme)
    group = {one.id: one for one in people}
    facts = scene.make_plan(3, 3, suite=number, server=boss.id)
    vectors = scene.inputs(group)
    leaves = {people[0].id: "input"}
    done = local.run(
        boss, facts, group, vectors, leaves=leaves, verifier="openssl", provider="openssl"
    )
    rest = [one.id for one in people[1:]]
    np.testing.assert_array_equal(done.total, scene.plain(vectors, rest))
    expected = local.upload(3, scene.LENGTH, suite=number, evidence=True)
    step = forms.DIGEST_SIZE + keys.ID_SIZE + chosen.enc_size  # of an odd degree: 1 or 2 edges
    assert all(abs(done.up[name] - expected) <= step for name in rest)


def test_a_plan_of_another_suite_is_refused_by_members():
    me = scene.server()
    for number, code in ((2, Code.SUITE), (0x01FF, Code.SUITE), (0x7777, Code.SUITE)):
        facts = scene.make_plan(3, 3, suite=number)
        opening = plan.signed(facts, plan.OPEN, me, plan.encode(facts))
        with pytest.raises(EnvelopeError) as caught:
            agreement.start(opening, me.public, facts.announce, 1, "openssl")
        assert caught.value.code is code
    with pytest.raises(EnvelopeError, match="no keys to make masks of"):
        plan.suite_of(0x01FF)

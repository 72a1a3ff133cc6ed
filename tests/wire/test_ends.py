"""Both ends of a networked exchange, with nothing but bytes between them."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qoejax.wire import codec, envelope, frames, keys, member, suites
from qoejax.wire.client import Chain
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.host import Host

SPEC = codec.tree_spec([("w", (3,), np.dtype("<f4"))])
MODEL = codec.encode(SPEC, [np.ones(3, np.float32)])
SERVER = keys.generate("openssl")
CLIENTS = [keys.generate("openssl") for _ in range(2)]
NOW = 1_800_000_000
OPENSSL = {"verifier": "openssl", "kem_provider": "openssl"}


def host(**options):
    ids = [one.id for one in CLIENTS]
    registry = keys.register([keys.enrol(one, (1,)) for one in CLIENTS], "openssl")
    return Host(SERVER, ids, registry, SPEC, suites.suite(1), **(OPENSSL | options))


def setup(index=0, server=SERVER):
    return member.Setup(CLIENTS[index], server.id, 1, False, "openssl", "openssl")


def work(number, model):
    assert model == MODEL
    return codec.encode(SPEC, [np.full(3, number + 1, np.float32)]), 5


def knows():
    """What a client remembers after it was asked who it is."""
    return member.State(SERVER.public)


def begin(end, number):
    end.begin_round(number, MODEL, [0, 1])


def turn(end, index=0):
    """A question as it arrives."""
    return frames.parse(frames.pack(end.turn(index)))


def answer(end, state, index=0):
    return member.answer(setup(index), state, turn(end, index), work, NOW)


def fill(end, state, index=0):
    """Answers until the round has the client's update; at most HELLO and UPDATE are needed."""
    for _ in range(2):
        if not end.has(index):
            state, data = answer(end, state, index)
            end.receive(index, data)
    assert end.has(index)
    return state


def code(call, *arguments):
    with pytest.raises(EnvelopeError) as caught:
        call(*arguments)
    return caught.value.code


WAYS = [{}, {"session": 2}, {"confidential": True}, {"session": 4, "confidential": True}]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_rounds_in_every_mode(way):
    end, states = host(**way), [knows(), knows()]
    greeted = []
    for number in range(4):
        begin(end, number)
        for index in (1, 0):
            states[index] = fill(end, states[index], index)
        result = end.finish_round()
        assert result.payloads == {i: work(number, MODEL)[0] for i in (0, 1)}
        assert result.rejected == {}
        assert result.n_samples == {0: 5, 1: 5}
        greeted.append(len(result.greetings))
    session, confidential = way.get("session", 0), "confidential" in way
    expected = {0: [2, 0, 0, 0] if confidential else [0] * 4, 2: [2, 0, 2, 0], 4: [2, 0, 0, 0]}
    assert greeted == expected[session]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("arrived", [False, True])
def test_a_client_that_was_killed_goes_on(way, arrived):
    """Killed after it had written what it knows, before or after its message arrived."""
    end, state = host(**way), knows()
    begin(end, 0)
    state, data = answer(end, state)
    if arrived:
        end.receive(0, data)
    state = member.parse(member.pack(state))
    state = fill(end, state)
    end.finish_round()
    begin(end, 1)
    fill(end, state)
    result = end.finish_round()
    assert result.rejected == {}
    assert result.evidence == ()


def test_an_answer_that_was_lost_is_given_again():
    end, state = host(), knows()
    begin(end, 0)
    state, first = answer(end, state)
    state, second = answer(end, state)
    end.receive(0, second)
    end.receive(0, first)  # it was only late: sealed again, the same content
    end.receive(0, second)
    result = end.finish_round()
    assert (result.duplicates, result.rejected) == (2, {})


def test_replayed_and_reordered_messages_are_refused_and_change_nothing():
    end, state = host(), knows()
    begin(end, 0)
    state, old = answer(end, state)
    end.receive(0, old)
    end.finish_round()
    begin(end, 1)
    assert code(end.receive, 0, old) is Code.ROUND  # of the round before
    state, late = answer(end, state)
    result = end.finish_round()
    assert result.rejected == {0: Code.ROUND}
    assert result.payloads == {}
    begin(end, 2)
    assert code(end.receive, 0, late) is Code.ROUND  # held back until its round was over
    state, new = answer(end, state)
    end.receive(0, new)
    assert end.finish_round().payloads == {0: work(2, MODEL)[0]}


def test_swapped_between_connections_each_counts_for_who_sealed_it():
    end = host()
    begin(end, 0)
    for index in (0, 1):
        _, data = answer(end, knows(), index)
        end.receive(1 - index, data)
    assert sorted(end.finish_round().payloads) == [0, 1]


def test_what_is_still_opened_when_the_round_closes_is_late():
    end = host()
    begin(end, 0)
    _, data = answer(end, knows())
    rnd = end._now()
    end.finish_round()
    begin(end, 1)
    assert code(end._take, rnd, data, rnd.clock) is Code.ROUND


def test_announcements_shown_again_out_of_order_or_to_another_are_not_answered():
    end, state = host(), knows()
    begin(end, 0)
    first, other = turn(end, 0), turn(end, 1)
    state, data = member.answer(setup(), state, first, work, NOW)
    end.receive(0, data)
    end.finish_round()
    begin(end, 1)
    state, data = answer(end, state)
    assert code(member.answer, setup(), state, first, work, NOW) is Code.ROUND
    assert code(member.answer, setup(), state, other, work, NOW) is Code.ROUND
    assert code(member.answer, setup(), knows(), other, work, NOW) is Code.SIGNATURE
    end.receive(0, data)
    stale = turn(end)
    assert stale.head.seq == 2
    state, _ = member.answer(setup(), state, stale, work, NOW)
    older = frames.sign_turn(
        SERVER, state.runs[end.facts().run].last[1], CLIENTS[0].id,
        stale._replace(head=Chain(1, first.head.prev)),
    )  # fmt: skip
    assert code(member.answer, setup(), state, older, work, NOW) is Code.REPLAY


def test_a_message_that_this_key_never_sealed_is_equivocation():
    end, state = host(), knows()
    begin(end, 0)
    _, clone = answer(end, knows())
    end.receive(0, clone)
    assert code(answer, end, state) is Code.EQUIVOCATION


def test_two_different_updates_in_one_slot_are_evidence():
    end = host()
    begin(end, 0)
    asked = turn(end)
    answers = [
        member.answer(setup(), knows(), asked, lambda n, m, x=x: (payload(x), 5), NOW)[1]
        for x in (1.0, 2.0)
    ]
    end.receive(0, answers[0])
    assert code(end.receive, 0, answers[1]) is Code.EQUIVOCATION
    assert len(end.finish_round().evidence) == 1


def payload(value):
    return codec.encode(SPEC, [np.full(3, value, np.float32)])


def test_a_norm_above_the_cap_is_refused_by_policy():
    end = host(max_norm=1.0)
    begin(end, 0)
    _, data = answer(end, knows())
    assert code(end.receive, 0, data) is Code.POLICY
    assert math.isclose(end._caps.norm, 1.0)


def test_another_server_another_suite_or_no_introduction_is_not_answered():
    end, asked = host(), frames.Who(bytes(32), SERVER.public, bytes(32))
    begin(end, 0)
    other = keys.generate("openssl")
    assert member.meet(setup(), member.State(), asked) == knows()
    assert code(member.meet, setup(server=other), member.State(), asked) is Code.SENDER
    assert code(member.answer, setup(), member.State(), turn(end), work, NOW) is Code.SENDER
    stranger = member.State(other.public)
    assert code(member.answer, setup(), stranger, turn(end), work, NOW) is Code.SENDER
    strict = setup()._replace(suite=2)
    assert code(member.answer, strict, knows(), turn(end), work, NOW) is Code.SUITE


def test_a_join_is_for_one_nonce_server_configuration_and_number():
    asked = frames.Who(b"n" * 32, SERVER.public, b"c" * 32)
    data = frames.join(asked, CLIENTS[0], 7, 1)
    found = frames.joined(asked, data, "openssl")
    assert (found.client, found.entry.id) == (7, CLIENTS[0].id)
    for other in (
        asked._replace(nonce=bytes(32)),
        asked._replace(config=bytes(32)),
        asked._replace(server=CLIENTS[1].public),
    ):
        assert code(frames.joined, other, data, "openssl") is Code.SIGNATURE


@pytest.fixture(scope="module")
def spoken():
    end = host()
    begin(end, 0)
    asked = frames.Who(b"n" * 32, SERVER.public, b"c" * 32)
    return asked, frames.pack(asked), frames.pack(end.turn(0)), frames.join(asked, CLIENTS[0], 0, 1)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(1, 3), at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_an_altered_frame_is_refused_with_a_code_or_signs_nothing_new(spoken, which, at, flip):
    asked, data = spoken[0], bytearray(spoken[which])
    data[at % len(data)] ^= flip
    try:
        if which == 3:
            frames.joined(asked, bytes(data), "openssl")
            pytest.fail("an altered join was accepted")
        found = frames.parse(bytes(data))
        if isinstance(found, frames.Turn):
            member.answer(setup(), knows(), found, work, NOW)
            assert found.grant != frames.parse(spoken[2]).grant  # not signed, AEAD in itself
    except EnvelopeError:
        pass


@given(st.binary(max_size=64))
def test_noise_is_no_frame(data):
    assert code(frames.parse, data) is Code.FORMAT
    asked = frames.Who(bytes(32), SERVER.public, bytes(32))
    assert code(frames.joined, asked, data, "openssl") is Code.FORMAT


def test_what_is_remembered_holds_no_secret():
    end, state = host(session=4, confidential=True), knows()
    begin(end, 0)
    for _ in range(2):
        state, data = answer(end, state)
        end.receive(0, data)
    state, _ = answer(end, state)
    (standing,) = state.runs.values()
    packed = member.pack(state)
    assert standing.reply is not None
    assert standing.reply.expose() not in packed
    assert standing.held is not None
    assert standing.held.chain_key.expose() not in packed
    again = member.parse(packed)
    (read,) = again.runs.values()
    assert (read.last, read.head, read.seq) == (standing.last, standing.head, standing.seq)
    assert (read.reply, read.held) == (None, None)


@pytest.mark.parametrize("data", [b"", b"\xa0", bytes(50)])
def test_a_damaged_memory_is_no_memory(data):
    assert code(member.parse, data) is Code.FORMAT


def test_a_hello_is_told_from_an_update():
    end = host(session=4)
    begin(end, 0)
    _, data = answer(end, knows())
    assert envelope.unpack(data).type == envelope.HELLO

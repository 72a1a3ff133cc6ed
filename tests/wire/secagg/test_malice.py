"""A server that lies to members, members that lie to each other, and frames that are not right."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.wire import kem
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secagg import agreement, attendance, client, forms, graph, plan, server
from qoejax.wire.secret import Secret
from tests.wire.secagg import scene

FACTS = scene.make_plan(4, 3)
GROUP = scene.members(7)
NAMES = list(GROUP)
PUBLICS = {name: one.public for name, one in GROUP.items()}


def refused(code, step, *arguments):
    with pytest.raises(EnvelopeError) as caught:
        step(*arguments)
    assert caught.value.code is code, caught.value
    return str(caught.value)


@functools.cache
def joined():
    made = {name: agreement.join(one, FACTS) for name, one in GROUP.items()}
    return {n: m[0] for n, m in made.items()}, {n: m[1] for n, m in made.items()}


@functools.cache
def members():
    return server.members(FACTS, {name: one.public for name, one in joined()[0].items()})


def encapsulate(name, frames=None, directory=None):
    frames = joined()[1] if frames is None else frames
    directory = members().directory if directory is None else directory
    return agreement.encapsulate(joined()[0][name], directory, frames, PUBLICS, "openssl")


@functools.cache
def encapsulated():
    return {name: encapsulate(name) for name in NAMES}


def received(name):
    found = encapsulated()
    behind = graph.anticlockwise(members().graph, name)
    return {peer: (found[peer][1], found[peer][2][name]) for peer in behind}


@functools.cache
def agreed():
    return {
        name: agreement.agree(encapsulated()[name][0], received(name), PUBLICS, "openssl")
        for name in NAMES
    }


@functools.cache
def shared():
    made = {name: client.share(one, FACTS) for name, one in agreed().items()}
    frames = {name: frame for name, (_, _, frame) in made.items()}
    return {n: m[1] for n, m in made.items()}, server.collected(FACTS, members(), frames), frames


VECTORS = scene.inputs(GROUP)


@functools.cache
def masking():
    states, collected, _ = shared()
    return {
        name: masked(states[name], collected.bits, server.boxes(collected, name), VECTORS[name])
        for name in NAMES
    }


def masked(state, members, boxes, words):
    """The state after a member's input was masked, and the frame."""
    after, total = client.ready(state, members, boxes)
    return after, client.mask(after, total, words)


def survivors(alive, facts=FACTS, me=None):
    return server.survivors(me or scene.server(), facts, shared()[1], alive)


def confirm(name, frame):
    return client.confirm(masking()[name][0], frame, scene.server().public, "openssl")


def confirmed(alive):
    """States and tags of all that are alive, of an honest server."""
    frame, body = survivors(alive)
    made = {name: confirm(name, frame) for name in alive}
    tags = {
        name: server.confirmation(FACTS, body, name, sent, PUBLICS[name], "openssl")
        for name, (_, sent) in made.items()
    }
    return {n: m[0] for n, m in made.items()}, tags


def to(name, tags):
    return {peer: own[name] for peer, own in tags.items() if name in own}


# The plan.


def test_a_plan_of_another_server_or_announcement_is_refused():
    opening = server.open_round(scene.server(), FACTS)
    public = scene.server().public
    assert agreement.start(opening, public, FACTS.announce, 1, "openssl") == FACTS
    refused(Code.ROUND, agreement.start, opening, public, bytes([9]) * 32, 1, "openssl")
    other = scene.identities(40)[30]
    refused(Code.SIGNATURE, agreement.start, opening, other.public, FACTS.announce, 1, "openssl")
    refused(Code.SIZE, agreement.start, opening[:100], public, FACTS.announce, 1, "openssl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 2}, "threshold 2: expected 3 to 5"),
        ({"threshold": 6}, "threshold 6"),
        ({"degree": 5}, "no graph of degree 5"),
        ({"least": 2}, "least 2: expected 3 to 7"),
        ({"least": 8}, "least 8"),
        ({"length": 0}, "length 0"),
    ],
)
def test_a_plan_that_protects_nobody_is_refused(changes, message):
    assert message in refused(Code.POLICY, plan.check, FACTS._replace(**changes), 7)


def test_plans_have_one_form():
    assert plan.decode(plan.encode(FACTS)) == FACTS
    for bad in ({"run": b""}, {"round": -1}, {"length": True}, {"announce": "x"}):
        refused(Code.FORMAT, plan.encode, FACTS._replace(**bad))
    refused(Code.FORMAT, plan.decode, b"\xa0")


def test_a_member_does_not_take_the_servers_word_for_degree_and_threshold():
    """One that is too easy to open, under what the member assumes of the others, stops it."""
    weak, strong = scene.make_plan(4, 3), scene.make_plan(6, 5)
    with pytest.raises(EnvelopeError, match=r"POLICY: 0 members"):
        scene.run(weak, 7, trust=agreement.Trust(0.2, True))
    vectors, done = scene.run(strong, 7, trust=agreement.Trust(0.2, True))
    np.testing.assert_array_equal(done.total, scene.plain(vectors, NAMES))
    state = joined()[0][NAMES[0]]
    message = refused(
        Code.POLICY, agreement.encapsulate, state, members().directory, joined()[1], PUBLICS,
        "openssl", agreement.Trust(0.2, True),
    )  # fmt: skip
    assert "degree 4 and threshold 3 for 7 members, 1 of them corrupt" in message


# Keys and ciphertexts.


def test_a_key_in_the_middle_is_not_taken():
    """The server swaps a neighbour's KEM key: unsigned, it costs the edge and is noted."""
    name = NAMES[0]
    peer = graph.clockwise(members().graph, name)[0]
    own = plan.frame(FACTS, plan.KEYS, peer, kem.keygen()[0]) + bytes(3309)
    state, _, sent = encapsulate(name, joined()[1] | {peer: own})
    assert state.refused == {peer: Code.SIGNATURE}
    assert peer not in sent
    # Even signed by a member that works with the server, it is not the key in the directory.
    signed = plan.signed(FACTS, plan.KEYS, GROUP[peer], kem.keygen()[0])
    state, _, _ = encapsulate(name, joined()[1] | {peer: signed})
    assert state.refused == {peer: Code.SPEC}


def test_ciphertexts_vouch_for_the_key_of_their_sender():
    """A recipient never sees the KEM key of who encapsulates to it: C, which they sign, has it."""
    name = NAMES[0]
    peer = graph.anticlockwise(members().graph, name)[0]
    ahead = graph.clockwise(members().graph, name)
    state, _, _ = encapsulate(name, {p: joined()[1][p] for p in ahead})
    assert state.refused == {}
    keys = {n: one.public for n, one in joined()[0].items()}

    def order(directory):
        seed = forms.seed(plan.digest(FACTS), directory)
        return graph.build(seed, directory.names, FACTS.degree)

    made = (forms.directory(keys | {peer: kem.keygen()[0]}) for _ in range(200))
    swapped = next(d for d in made if peer in graph.anticlockwise(order(d), name))
    refused(Code.SENDER, encapsulate, peer, None, swapped)  # so an honest sender never signs it
    state, _, _ = encapsulate(name, None, swapped)
    behind = graph.anticlockwise(state.graph, name)
    got = {p: (encapsulated()[p][1], bytes(1120)) for p in behind}
    one = agreement.agree(state, got, PUBLICS, "openssl")
    assert {p: one.refused[p] for p in behind} == dict.fromkeys(behind, Code.SPEC)
    assert not set(behind) & set(one.edges)


def test_a_directory_without_ones_own_key_is_refused():
    keys = {name: one.public for name, one in joined()[0].items()}
    other = forms.directory(keys | {NAMES[0]: kem.keygen()[0]})
    refused(Code.SENDER, encapsulate, NAMES[0], None, other)
    refused(Code.POLICY, encapsulate, NAMES[0], None, forms.directory({NAMES[0]: bytes(1216)}))


def test_members_with_other_directories_share_no_edge():
    keys = {name: one.public for name, one in joined()[0].items()}
    without = forms.directory({n: k for n, k in keys.items() if n != NAMES[6]})
    lied = encapsulate(NAMES[1], directory=without)
    refused(
        Code.SPEC, server.ciphertexts, FACTS, members(), NAMES[1], lied[1], lied[2],
        PUBLICS[NAMES[1]], "openssl",
    )  # fmt: skip
    name = next(n for n in NAMES if NAMES[1] in graph.anticlockwise(members().graph, n))
    got = received(name) | {NAMES[1]: (lied[1], bytes(1120))}
    one = agreement.agree(encapsulated()[name][0], got, PUBLICS, "openssl")
    assert one.refused == {NAMES[1]: Code.SPEC}
    assert NAMES[1] not in one.edges


def test_a_swapped_ciphertext_costs_the_edge():
    name = NAMES[0]
    peer = graph.anticlockwise(members().graph, name)[0]
    frame, _ = received(name)[peer]
    own, _ = kem.encaps(joined()[0][name].public)
    got = received(name) | {peer: (frame, own)}
    one = agreement.agree(encapsulated()[name][0], got, PUBLICS, "openssl")
    assert one.refused == {peer: Code.SPEC}
    assert set(one.edges) == set(graph.neighbours(members().graph, name)) - {peer}


def test_with_too_few_edges_a_member_stops():
    message = refused(Code.POLICY, agreement.agree, encapsulated()[NAMES[0]][0]._replace(edges={}),
                      {}, PUBLICS, "openssl")  # fmt: skip
    assert "1 of this member's holders agreed on a key: expected 3" in message


def test_both_ends_of_an_edge_agree_and_strangers_do_not():
    edges = {
        (name, peer): edge.secret.expose()
        for name, one in agreed().items() for peer, edge in one.edges.items()
    }  # fmt: skip
    assert all(edges[a, b] == edges[b, a] for a, b in edges)
    assert len(set(edges.values())) == 7 * 4 // 2


# Shares.


def test_a_box_that_does_not_open_costs_the_share_and_not_the_round():
    states, collected, _ = shared()
    name = NAMES[0]
    boxes = server.boxes(collected, name)
    first, second = sorted(boxes)[:2]
    flipped = bytes([boxes[first].sealed[0] ^ 1]) + boxes[first].sealed[1:]
    lies = boxes | {
        first: boxes[first]._replace(sealed=flipped),
        second: boxes[second]._replace(commits=(bytes(16), bytes(16))),
    }
    state, frame = masked(states[name], collected.bits, lies, VECTORS[name])
    assert state.refused == {first: Code.DECRYPT, second: Code.SPEC}
    assert not {first, second} & set(state.held)
    honest = masking()[name][1]
    assert plan.unsealed(frame, 1) == plan.unsealed(honest, 1)  # the masks are the same


def test_boxes_of_strangers_and_too_few_boxes_are_refused():
    states, collected, _ = shared()
    name = NAMES[0]
    boxes = server.boxes(collected, name)
    some = dict(list(boxes.items())[:1])
    refused(Code.POLICY, client.ready, states[name], collected.bits, some)
    stranger = next(n for n in NAMES if n not in boxes and n != name)
    more = boxes | {stranger: next(iter(boxes.values()))}
    refused(Code.SENDER, client.ready, states[name], collected.bits, more)
    refused(Code.SIZE, client.ready, states[name], b"\xff" * 3, boxes)
    with pytest.raises(ValueError, match="23 words of uint32"):
        masked(states[name], collected.bits, boxes, VECTORS[name][:-1])


def test_the_server_takes_boxes_for_neighbours_only():
    _, _, frames = shared()
    name = NAMES[0]
    body = plan.read(FACTS, plan.SHARES, name, frames[name])
    found = forms.unpack_shares(body)
    stranger = next(n for n in NAMES if n not in found.boxes and n != name)
    boxes = {**found.boxes, stranger: next(iter(found.boxes.values()))}
    boxes.pop(next(iter(found.boxes)))
    lied = plan.frame(
        FACTS, plan.SHARES, name, forms.pack_shares(found._replace(boxes=boxes))
    )  # fmt: skip
    refused(Code.SPEC, server.shares, FACTS, members(), name, lied)
    refused(Code.SENDER, server.shares, FACTS, members(), bytes(16), frames[name])
    refused(Code.SIZE, forms.unpack_shares, body[:-1])


# Inputs.


def test_an_input_is_taken_from_its_sender_once_and_whole():
    _, collected, _ = shared()
    name, other = NAMES[:2]
    frame = masking()[name][1]
    found = server.masked(FACTS, collected, name, frame, PUBLICS[name], "openssl")
    assert (found != VECTORS[name]).any()
    taken = functools.partial(server.masked, FACTS, collected)
    refused(Code.SIGNATURE, taken, name, frame, PUBLICS[other], "openssl")
    refused(Code.ROUND, taken, other, frame, PUBLICS[other], "openssl")
    refused(Code.SENDER, taken, bytes(16), frame, PUBLICS[name], "openssl")
    refused(Code.ROUND, taken, name, frame[:-1], PUBLICS[name], "openssl")
    flipped = bytearray(frame)
    flipped[300] ^= 1
    refused(Code.SIGNATURE, taken, name, bytes(flipped), PUBLICS[name], "openssl")
    short = plan.signed(FACTS, plan.INPUT, GROUP[name], bytes(64))
    refused(Code.SIZE, taken, name, short, PUBLICS[name], "openssl")
    others = plan.signed(FACTS, plan.INPUT, GROUP[name], bytes(64 + 4 * scene.LENGTH))
    refused(Code.SPEC, taken, name, others, PUBLICS[name], "openssl")


# The survivor set.


def test_survivor_sets_that_contradict_what_a_member_knows():
    name = NAMES[0]
    refused(Code.EQUIVOCATION, confirm, name, survivors(NAMES[1:])[0])  # "you dropped"
    collected = shared()[1]
    lied = collected._replace(bits=forms.bits(NAMES[:6], members().directory))
    other, _ = server.survivors(scene.server(), FACTS, lied, NAMES[:6])
    refused(Code.EQUIVOCATION, confirm, name, other)  # other members than before
    frame, body = survivors(NAMES)
    forged = frame[:-3309] + scene.identities(40)[30].sign(body, plan.CONTEXT)
    refused(Code.SIGNATURE, confirm, name, forged)
    later = FACTS._replace(round=5, first=5)
    refused(Code.ROUND, confirm, name, survivors(NAMES, later)[0])


def test_too_few_survivors_around_a_member():
    near = graph.neighbours(members().graph, NAMES[0])
    far = [n for n in NAMES if n not in near and n != NAMES[0]]
    refused(Code.POLICY, confirm, NAMES[0], survivors([NAMES[0], *far])[0])
    refused(Code.POLICY, survivors, NAMES[:2])


def test_no_split_of_a_sparse_graph_opens_both_secrets_of_a_member():
    """The server calls one member dropped to some of its neighbours and alive to the others."""
    victim = NAMES[0]
    for cut in range(8):
        believe = {n: NAMES if i < cut else NAMES[1:] for i, n in enumerate(NAMES[1:])}
        states, tags = {}, {}
        for name, alive in believe.items():
            frame, body = survivors(alive)
            states[name], sent = confirm(name, frame)
            tags[name] = server.confirmation(FACTS, body, name, sent, PUBLICS[name], "openssl")
        released, codes = {forms.BLIND: 0, forms.WRAP: 0}, set()
        for name, state in states.items():
            try:
                frame = client.unmask(state, to(name, tags))
            except EnvelopeError as error:
                codes.add(error.code)
                continue
            body = plan.read(FACTS, plan.UNMASK, name, frame)
            kind = forms.unpack_released(body).get(victim, (None,))[0]
            if kind is not None:
                released[kind] += 1
        assert codes <= {Code.EQUIVOCATION}
        assert min(released.values()) < FACTS.threshold
        assert sum(released.values()) < 2 * FACTS.threshold


def test_in_a_complete_graph_two_views_of_the_survivors_open_nothing(monkeypatch):
    """Half of the members are told that one dropped; a server that relays all the same."""
    views, stopped = {}, []
    survivors_, confirm_, unmask_ = server.survivors, client.confirm, client.unmask

    def survivors(me, facts, state, alive):
        others = [name for name in alive if name != NAMES[0]]
        views["other"] = survivors_(me, facts, state, others)[0]
        return survivors_(me, facts, state, alive)

    def confirm(state, told, *rest):
        mine = state.sharing.epoch.me.id
        return confirm_(state, views["other"] if mine in NAMES[1:4] else told, *rest)

    def unmask(state, tags):
        try:
            return unmask_(state, tags)
        except EnvelopeError as error:
            stopped.append(error.code)
            raise

    monkeypatch.setattr(server, "survivors", survivors)
    monkeypatch.setattr(client, "confirm", confirm)
    monkeypatch.setattr(client, "unmask", unmask)
    monkeypatch.setattr(
        server, "confirmation", lambda *args: forms.unpack_tags(plan.unsealed(args[3], 1))[1]
    )
    with pytest.raises(EnvelopeError, match=r"POLICY: client .*: 0 shares, 4 needed"):
        scene.run(scene.make_plan(6, 4), 7, leaves={NAMES[0]: "confirm"})
    assert stopped == [Code.EQUIVOCATION] * 6


def test_a_confirmation_of_another_set_is_refused_and_is_evidence():
    told, sent = survivors(NAMES[:6])[0], NAMES[0]
    _, frame = confirm(sent, told)
    _, body = survivors(NAMES)
    args = (FACTS, body, sent, frame, PUBLICS[sent], "openssl")
    refused(Code.EQUIVOCATION, server.confirmation, *args)
    assert plan.verified(FACTS, plan.CONFIRM, sent, frame, PUBLICS[sent], "openssl")


def test_without_confirmations_nothing_is_released():
    states, tags = confirmed(NAMES)
    name = NAMES[0]
    assert "1 of this member's holders confirmed" in refused(
        Code.POLICY, client.unmask, states[name], {}
    )
    lies = {peer: bytes(16) for peer in to(name, tags)}
    assert "4 neighbours confirmed another" in refused(
        Code.EQUIVOCATION, client.unmask, states[name], lies
    )
    swapped = to(NAMES[1], tags)
    refused(Code.EQUIVOCATION, client.unmask, states[name], swapped)


def test_one_survivor_set_decides_what_is_released():
    """b for survivors, K for the others, and no state from which the other could be had."""
    alive = NAMES[:6]
    states, tags = confirmed(alive)
    kinds = {}
    for name, state in states.items():
        body = plan.read(FACTS, plan.UNMASK, name, client.unmask(state, to(name, tags)))
        for owner, (kind, _) in forms.unpack_released(body).items():
            kinds.setdefault(owner, set()).add(kind)
    assert kinds == {n: {forms.BLIND} for n in alive} | {NAMES[6]: {forms.WRAP}}
    assert not hasattr(states[NAMES[0]], "confirm")


# What is released.


def honest_release(alive):
    states, tags = confirmed(alive)
    return {name: client.unmask(state, to(name, tags)) for name, state in states.items()}


def repacked(name, frame, change):
    found = forms.unpack_released(plan.read(FACTS, plan.UNMASK, name, frame))
    pairs = {owner: (kind, Secret(value)) for owner, (kind, value) in found.items()}
    return plan.frame(FACTS, plan.UNMASK, name, forms.pack_released(change(pairs)))


def test_wrong_shares_wrong_kinds_and_both_kinds_are_refused():
    alive = set(NAMES)
    collected = shared()[1]
    frames = honest_release(NAMES)
    name = NAMES[0]
    owner = graph.clockwise(members().graph, name)[0]
    take = functools.partial(server.released, FACTS, collected, alive, name)
    assert set(take(frames[name])) == {name, *graph.neighbours(members().graph, name)}
    wrong = repacked(name, frames[name], lambda r: r | {owner: (0, Secret(bytes(66)))})
    assert owner.hex() in refused(Code.SPEC, take, wrong)
    other = masking()[name][0].held[owner][1]
    kind = repacked(name, frames[name], lambda r: r | {owner: (forms.WRAP, other)})
    assert "the wrong secret" in refused(Code.POLICY, take, kind)
    both = frames[name] + forms.pack_released({owner: (forms.WRAP, other)})
    fixed = plan.frame(FACTS, plan.UNMASK, name, both[218:])
    refused(Code.FORMAT, take, fixed)  # one record an owner, in order
    stranger = next(n for n in NAMES if n not in masking()[name][0].held)
    more = repacked(name, frames[name], lambda r: r | {stranger: (0, Secret(bytes(66)))})
    refused(Code.SPEC, take, more)
    foreign = repacked(name, frames[name], lambda r: r | {bytes(16): (0, Secret(bytes(66)))})
    refused(Code.SPEC, take, foreign)


def test_a_wrong_share_leaves_the_sum_exact_where_enough_right_ones_are_left():
    def lie(step, name, frame):
        if step != "unmask" or name != NAMES[0]:
            return frame
        return frame[:-1] + bytes([frame[-1] ^ 1])

    vectors, done = scene.run(scene.make_plan(4, 3), 7, tamper=lie)
    assert set(done.refused) == {NAMES[0]}
    assert done.refused[NAMES[0]].code is Code.SPEC
    np.testing.assert_array_equal(done.total, scene.plain(vectors, NAMES))


def test_a_dealer_of_inconsistent_shares_is_named(monkeypatch):
    """Shares that fit their commitments, but not the secret that was committed to."""
    true = client.shamir.split

    def split(secret, xs, threshold):
        return true(Secret(bytes(32)), xs, threshold)

    monkeypatch.setattr(client.shamir, "split", split)
    with pytest.raises(EnvelopeError, match=r"SPEC: client .* shared another secret than it said"):
        scene.run(scene.make_plan(4, 3), 7)


def test_total_needs_enough_shares_of_everybody():
    collected = shared()[1]
    given_all = {
        name: server.released(FACTS, collected, set(NAMES), name, frame)
        for name, frame in honest_release(NAMES).items()
    }
    inputs = {
        n: server.masked(FACTS, collected, n, masking()[n][1], PUBLICS[n], "openssl") for n in NAMES
    }
    out = server.total(FACTS, collected, inputs, given_all)
    np.testing.assert_array_equal(out, scene.plain(VECTORS, NAMES))
    few = dict(list(given_all.items())[:2])
    refused(Code.POLICY, server.total, FACTS, collected, inputs, few)


# Frames.


class Receiver(NamedTuple):
    """A genuine frame, and what its recipient does with any bytes in its place."""

    genuine: bytes
    receive: Callable[[bytes], object]
    signed: bool = True


@functools.cache
def receivers():
    name, public = NAMES[0], PUBLICS[NAMES[0]]
    told, body = survivors(NAMES)
    peer = graph.clockwise(members().graph, name)[0]
    behind = received(peer)
    confirming = confirm(name, told)[1]

    def key(data):
        server.key(FACTS, name, data, public, "openssl")

    def ciphertexts(data):
        given = behind | {name: (data, behind[name][1])}
        one = agreement.agree(encapsulated()[peer][0], given, PUBLICS, "openssl")
        if name in one.refused:
            raise EnvelopeError(one.refused[name], "refused")

    def masked(data):
        server.masked(FACTS, shared()[1], name, data, public, "openssl")

    def confirmation(data):
        server.confirmation(FACTS, body, name, data, public, "openssl")

    def opening(data):
        agreement.start(data, scene.server().public, FACTS.announce, 1, "openssl")

    return {
        "OPEN": Receiver(server.open_round(scene.server(), FACTS), opening),
        "KEYS": Receiver(joined()[1][name], key),
        "CIPHERTEXTS": Receiver(encapsulated()[name][1], ciphertexts),
        "SHARES": Receiver(
            shared()[2][name], lambda data: server.shares(FACTS, members(), name, data), False
        ),
        "INPUT": Receiver(masking()[name][1], masked),
        "SURVIVORS": Receiver(told, lambda data: confirm(name, data)),
        "CONFIRM": Receiver(confirming, confirmation),
        "UNMASK": Receiver(
            honest_release(NAMES)[name],
            lambda data: server.released(FACTS, shared()[1], set(NAMES), name, data),
            False,
        ),
    }


def accepted(step, data):
    """Whether the recipient takes the bytes; nothing but an EnvelopeError may leave it."""
    try:
        receivers()[step].receive(data)
    except EnvelopeError:
        return False
    return True


def test_genuine_frames_are_taken():
    assert set(receivers()) == set(FRAMES)
    assert all(accepted(step, one.genuine) for step, one in receivers().items())


FRAMES = ("OPEN", "KEYS", "CIPHERTEXTS", "SHARES", "INPUT", "SURVIVORS", "CONFIRM", "UNMASK")


@given(st.sampled_from(FRAMES), st.data())
def test_altered_frames_are_refused_and_nothing_else_is_raised(step, data):
    one = receivers()[step]
    raw = bytearray(one.genuine)
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    for text in (bytes(raw), cut, cut + b"\0", data.draw(st.binary(max_size=300))):
        taken = accepted(step, text)
        assert not (taken and one.signed and text != one.genuine)


@pytest.mark.parametrize("step", attendance.STEPS)
def test_any_changed_frame_costs_its_sender_at_most(step):
    """Bits flipped all over the frames of one member: its word is lost, or the sum is exact."""
    rng = np.random.default_rng(attendance.STEPS.index(step))
    for _ in range(2):

        def flip(at, name, frame):
            if at != step or name != NAMES[2]:
                return frame
            raw = bytearray(frame)
            raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
            return bytes(raw)

        vectors, done = scene.run(scene.make_plan(6, 4), 7, tamper=flip)
        assert set(NAMES) - {NAMES[2]} <= set(done.survivors)
        np.testing.assert_array_equal(done.total, scene.plain(vectors, done.survivors))

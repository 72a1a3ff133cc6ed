"""What a network, or someone on it, does to one client's answers; each takes and gives ``answer``.

Questions are frames, and the first answer on a connection is a Join: only envelopes are meddled
with.
"""

import os
import signal
import time

from qoejax.wire import envelope


def _is_envelope(data):
    return data.startswith(envelope.MAGIC)


def _meddle(answer, with_envelope):
    def meddled(question):
        data = answer(question)
        return with_envelope(data) if _is_envelope(data) else data

    return meddled


def replay(answer):
    """The envelope of the round before comes first, once a round."""
    old, turn = [b""], [0]

    def first_the_old_one(data):
        turn[0] += 1
        if turn[0] % 2 == 0 and old[0]:
            return old[0]
        old[0] = data
        return data

    return _meddle(answer, first_the_old_one)


def reorder(answer, number=1):
    """The envelope of round ``number`` (from 0) comes in the round after, first."""
    held = []

    def overtaken(data):
        if envelope.unpack(data).round == number:
            held[:] = [data]
            return b""
        return held.pop() if held else data

    return _meddle(answer, overtaken)


def delay(answer, number=1, seconds=8.0):
    """The envelope of round ``number`` (from 0) takes its time, once."""
    seen = [False]

    def late(data):
        if envelope.unpack(data).round == number and not seen[0]:
            seen[0] = True
            time.sleep(seconds)
        return data

    return _meddle(answer, late)


def forge(answer):
    """One bit of the first envelope of each round is flipped."""
    rounds = set()

    def flipped(data):
        number = envelope.unpack(data).round
        if number in rounds:
            return data
        rounds.add(number)
        return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]

    return _meddle(answer, flipped)


def die(answer, number=2):
    """The process is killed after it sealed its envelope of round ``number``, before it sends."""

    def killed(data):
        if envelope.unpack(data).round == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return data

    return _meddle(answer, killed)


def stall(answer):
    """The last envelope of four takes long enough for the server to be killed meanwhile."""
    return delay(answer, number=3, seconds=15.0)


FAULTS = {
    "replay": replay, "reorder": reorder, "delay": delay, "forge": forge, "die": die,
    "stall": stall,
}  # fmt: skip

"""Plain sockets as a transport, for tests of all that does not depend on Flower."""

import contextlib
import threading
import time
from multiprocessing import connection


@contextlib.contextmanager
def serving(gate):
    """Hands every connection to ``gate``; yields the port."""
    with connection.Listener(("127.0.0.1", 0)) as listener:
        alive = []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    alive.append(listener.accept())
                    threading.Thread(target=gate.arrived, args=(ask_of(alive[-1]),)).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.address[1]
        for one in alive:  # the run is over
            with contextlib.suppress(OSError):
                one.send_bytes(b"")
                one.close()


def ask_of(one):
    def ask(question, seconds):
        try:
            one.send_bytes(question)
            if not one.poll(max(0.0, seconds)):
                one.close()
                raise TimeoutError(f"no answer in {seconds:.1f} s")
            return one.recv_bytes()
        except EOFError:
            raise ConnectionError("the other end is gone") from None

    return ask


def attend(port, answer, seconds=60.0):
    """Answers until an empty question; connects again when a connection is lost."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with connection.Client(("127.0.0.1", port)) as one:
                while question := one.recv_bytes():
                    one.send_bytes(answer(question))
                return
        except (EOFError, OSError):
            time.sleep(0.05)

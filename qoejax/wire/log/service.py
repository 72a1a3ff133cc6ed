"""Witnesses over HTTP (C2SP tlog-witness): the server's side and the log's side.

POST /add-checkpoint            asks for a cosignature
GET  /checkpoint/ORIGIN         the last checkpoint that this witness cosigned (ours: the
                                standard leaves the monitor's side open)
"""

import http.client
import http.server
import time
import urllib.parse
from collections.abc import Iterable
from http import HTTPStatus

from qoejax.wire.log import note, proof
from qoejax.wire.log import witness as core
from qoejax.wire.log.errors import LogError, SplitViewError
from qoejax.wire.log.merkle import Tree
from qoejax.wire.log.note import MAX_NOTE, Note
from qoejax.wire.log.policy import Policy
from qoejax.wire.log.witness import Answer, Witness

TIMEOUT = 10.0
"""Seconds that either side waits for the other."""
_MAX_BODY = 2 * MAX_NOTE
_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


def serve(witness: Witness, host: str, port: int) -> http.server.HTTPServer:
    """A server bound to (host, port); ``serve_forever`` runs it.

    One request at a time: checking the remembered size and replacing it must not interleave.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = TIMEOUT

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > _MAX_BODY:
                self.close_connection = True
                return self._answer(Answer(413, f"expected at most {_MAX_BODY} bytes\n"))
            body = self.rfile.read(int(length))
            if self.path != "/add-checkpoint":
                return self._answer(Answer(404, "expected /add-checkpoint\n"))
            try:
                text = body.decode()
            except UnicodeDecodeError:
                return self._answer(Answer(400, "not UTF-8\n"))
            try:
                return self._answer(core.add_checkpoint(witness, text, int(time.time())))
            except (LogError, OSError) as error:
                return self._answer(Answer(500, f"{error}\n"))

        def do_GET(self) -> None:
            origin = urllib.parse.unquote(self.path.removeprefix("/checkpoint/"))
            try:
                last = core.remembered(witness, origin) if origin in witness.logs else None
            except LogError as error:
                return self._answer(Answer(500, f"{error}\n"))
            if last is None:
                return self._answer(Answer(404, "no checkpoint of this log\n"))
            return self._answer(Answer(200, last.text))

        def _answer(self, answer: Answer) -> None:
            data = answer.body.encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(data)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            del format, args  # quiet: the caller prints what matters

    return http.server.HTTPServer((host, port), Handler)


def _post(url: str, body: str) -> tuple[int, str]:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in _CONNECTIONS or not parts.hostname:
        raise LogError(f"witness url {url!r}: expected http://HOST[:PORT][/PREFIX], or https")
    connection = _CONNECTIONS[parts.scheme](parts.hostname, parts.port, timeout=TIMEOUT)
    try:
        connection.request("POST", f"{parts.path.rstrip('/')}/add-checkpoint", body.encode())
        response = connection.getresponse()
        data = response.read(_MAX_BODY + 1)
    finally:
        connection.close()
    if len(data) > _MAX_BODY:
        raise LogError(f"witness {url}: an answer of more than {_MAX_BODY} bytes")
    return response.status, data.decode(errors="replace")


def ask(name: str, trusted: Policy, signed: Note, tree: Tree, known: int) -> str:
    """One witness's signature lines on a checkpoint, verified.

    Args:
        name: the witness, as the policy calls it.
        trusted: the policy.
        signed: checkpoint of ``tree`` as it is now.
        tree: gives the consistency proof.
        known: size that the witness cosigned last, as far as the log knows.

    Raises:
        SplitViewError: the witness has seen another history of this log.
        LogError: it refused, or its cosignature is wrong.
        OSError: it cannot be reached.
    """
    one = trusted.witnesses[name]
    size = signed.checkpoint.size
    for _ in range(2):  # the second time with the size that the witness said
        body = proof.request(known, tree.consistency(known, size), signed)
        status, text = _post(one.url, body)
        if status != HTTPStatus.CONFLICT:
            break
        seen = note.decimal(text.removesuffix("\n"))
        if seen > size or seen == known:
            raise SplitViewError(
                f"witness {name} remembers {seen} entries of {signed.checkpoint.origin} that are "
                f"not the {size} here: the log was forked or rolled back"
            )
        known = seen
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        raise SplitViewError(
            f"witness {name} remembers {known} entries of {signed.checkpoint.origin} that are not "
            f"the first of the {size} here: the log was forked or rolled back"
        )
    if status != HTTPStatus.OK:
        raise LogError(f"witness {name} answered {status}: {text.strip()[:200]}")
    verifier = one.verifier
    if note.verify(note.assemble(signed.checkpoint, text), verifier) is None:
        raise LogError(f"witness {name} answered with somebody else's signature")
    own = [line for line in text.splitlines(keepends=True) if f" {verifier.name} " in line]
    return "".join(own)


def collect(
    trusted: Policy, signed: Note, tree: Tree, known: dict[str, int]
) -> tuple[str, dict[str, str]]:
    """Signature lines of all witnesses that have a url, and why the others gave none.

    Raises:
        SplitViewError: a witness has seen another history: the run must stop.
    """
    lines, failed = [], {}
    for name in _reachable(trusted):
        try:
            lines.append(ask(name, trusted, signed, tree, known.get(name, 0)))
        except SplitViewError:
            raise
        except (LogError, OSError, http.client.HTTPException) as error:
            failed[name] = str(error)
    return "".join(lines), failed


def _reachable(trusted: Policy) -> Iterable[str]:
    return (name for name, one in trusted.witnesses.items() if one.url)

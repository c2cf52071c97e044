"""The agent's own HTTP: how bodies end, connections that are kept and lost, what is refused; archives for tarballs."""

from __future__ import annotations

import io
import json
import os
import select
import socket
import ssl
import tarfile
import threading
import zipfile
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from arc.agent import archives
from arc.agent.errors import ActionFailed
from arc.agent.execute import Execute
from arc.agent.http import BadAnswer, Connection, Url, download
from arc.agent.task import Task
from tests.unit.test_agent_processes import Notes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Scripted:
    """Answers connections with bytes of the test: one list per connection, one answer per request."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.requests: list[bytes] = []
        self._connections = connections
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answers in self._connections:
            connection, _ = self._listener.accept()
            with connection:
                for answer in answers:
                    self.requests.append(_request(connection))
                    connection.sendall(answer)

    def close(self) -> None:
        self._thread.join(5)
        self._listener.close()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (block := connection.recv(4096)):
        data += block
    return data


@pytest.fixture
def serve() -> Iterator[Callable[..., Scripted]]:
    made: list[Scripted] = []

    def make(*connections: list[bytes]) -> Scripted:
        made.append(Scripted(*connections))
        return made[-1]

    yield make
    for each in made:
        each.close()


def get(server: Scripted, times: int = 1) -> list[tuple[int, bytes]]:
    connection = Connection(server.url)
    try:
        answers = [connection.request("GET", "/x") for _ in range(times)]
    finally:
        connection.close()
    return [(answer.status, answer.body) for answer in answers]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (OK, 200, b"ok"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
            200,
            b"abcde",
        ),
        (b"HTTP/1.1 404 Not Found\r\n\r\nuntil the end", 404, b"until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
    ],
)
def test_bodies_end_where_they_should(serve: Callable[..., Scripted], raw: bytes, status: int, body: bytes) -> None:
    assert get(serve([raw])) == [(status, body)]


def test_connection_is_kept(serve: Callable[..., Scripted]) -> None:
    assert get(serve([OK, OK, OK]), 3) == [(200, b"ok")] * 3


@pytest.mark.parametrize(
    "first", [OK, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 OK\r\n\r\nok"]
)
def test_connection_that_was_closed_is_opened_anew(serve: Callable[..., Scripted], first: bytes) -> None:
    assert get(serve([first], [OK]), 2) == [(200, b"ok")] * 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    ],
)
def test_what_is_no_http_is_an_error(serve: Callable[..., Scripted], raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        get(serve([raw]))


def test_header_cannot_be_smuggled(serve: Callable[..., Scripted]) -> None:
    connection = Connection(serve().url)

    with pytest.raises(ValueError, match="line break"):
        connection.request("GET", "/", headers={"X": "a\r\nY: b"})


def test_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(f"http://127.0.0.1:{listener.getsockname()[1]}")

        with pytest.raises(TimeoutError):
            connection.request("GET", "/", timeout_s=0.1)


def test_abort_ends_what_another_thread_waits_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(f"http://127.0.0.1:{listener.getsockname()[1]}")
        failures: list[Exception] = []

        def wait() -> None:
            try:
                connection.request("GET", "/", timeout_s=30)
            except OSError as error:
                failures.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(10)  # the request is on its way
            connection.abort()
            waiter.join(5)

    assert len(failures) == 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http://h", ("http", "h", 80, "/")),
        ("HTTPS://h.example/a/b?c=d#e", ("https", "h.example", 443, "/a/b?c=d")),
        ("http://[::1]:8000/", ("http", "::1", 8000, "/")),
        ("http://h?x", ("http", "h", 80, "/?x")),
    ],
)
def test_addresses_are_read(text: str, parts: tuple[object, ...]) -> None:
    assert Url.parse(text) == parts


@pytest.mark.parametrize("text", ["", "h", "ftp://h", "http://", "http://h:x", "http://u@h", "http://h/a b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Url.parse(text)


def test_download_follows_redirects(serve: Callable[..., Scripted], tmp_path: Path) -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
    server = serve([moved % b"/other"], [moved % b"third?x=1"], [OK])

    assert download(f"{server.url}/a/b", str(tmp_path / "x"), 5, lambda: None) == (200, "OK")

    assert (tmp_path / "x").read_bytes() == b"ok"
    assert [request.split()[1] for request in server.requests] == [b"/a/b", b"/other", b"/third?x=1"]


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for localhost that nobody signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + made.public_bytes(pem))
    return path


@pytest.fixture
def tls_port(certificate: Path) -> Iterator[int]:
    """Where one connection is answered twice."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            with accepted, suppress(OSError), context.wrap_socket(accepted, server_side=True) as connection:
                for _ in range(2):
                    _request(connection)
                    connection.sendall(OK)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def test_https_works_with_the_certificates_of_the_option(tls_port: int, certificate: Path) -> None:
    connection = Connection(f"https://localhost:{tls_port}", str(certificate))

    answers = [connection.request("GET", "/").body for _ in range(2)]
    connection.close()

    assert answers == [b"ok", b"ok"]


def test_server_that_nobody_vouches_for_gets_no_request(tls_port: int) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        Connection(f"https://localhost:{tls_port}").request("GET", "/")


# Archives


def tar(mode: str, name: str = "bin/hello", mode_bits: int = 0o755) -> bytes:
    out = io.BytesIO()
    content = b'#!/bin/sh\necho "$GREETING $1 from $(basename $(dirname $0))" && pwd && ls\n'
    with tarfile.open(fileobj=out, mode=mode) as archive:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), mode_bits
        archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def zipped(name: str = "bin/hello") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o755 << 16
        archive.writestr(info, b'#!/bin/sh\necho "$GREETING $1 from $(basename $(dirname $0))" && pwd && ls\n')
    return out.getvalue()


def serving(content: bytes, status: bytes = b"200 OK") -> list[bytes]:
    return [b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(content), content)]


def payload(server: Scripted, path: str = "bin/hello") -> str:
    wanted = {"url": f"{server.url}/a.tgz", "path": path, "arguments": ["you"], "environment": {"GREETING": "hello"}}
    return json.dumps(wanted)


@pytest.fixture
def trickle() -> Iterator[str]:
    """Address of what sends a byte now and then, until its client goes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not select.select([connection], [], [], 0.01)[0] or connection.recv(4096):
                    connection.sendall(b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        thread.join(5)


def run_tarball(text: str, notes: Notes) -> None:
    with closing(Task("one", text, 20.0, notes)) as task:
        Execute().tarball(task)


@pytest.mark.parametrize("content", [tar("w:"), tar("w:gz"), tar("w:bz2"), zipped()], ids=["tar", "gz", "bz2", "zip"])
def test_tarball_runs_its_program_where_it_was_unpacked(serve: Callable[..., Scripted], content: bytes) -> None:
    notes = Notes()

    run_tarball(payload(serve(serving(content))), notes)

    greeting, directory, *listed = notes.log.splitlines()
    assert greeting == "hello you from bin"
    assert listed == ["bin"]
    assert not os.path.exists(directory)


@pytest.mark.parametrize(
    ("content", "status", "path", "text"),
    [
        (b"", b"404 Not Found", "x", r"failed to retrieve http://.*/a.tgz: 404 Not Found"),
        (tar("w:xz"), b"200 OK", "bin/hello", r"fork/exec /.*/bin/hello: no such file or directory"),
        (tar("w:gz"), b"200 OK", "../../bin/sh", r"path '../../bin/sh' is not inside the archive"),
        (tar("w:gz"), b"200 OK", "/bin/sh", r"path '/bin/sh' is not inside the archive"),
        (tar("w:gz"), b"200 OK", "", r"path '' is not inside the archive"),
        (tar("w:gz", "../escape"), b"200 OK", "x", r"failed to unpack .* outside the destination"),
        (tar("w:gz", mode_bits=0o644), b"200 OK", "bin/hello", r"fork/exec /.*/bin/hello: permission denied"),
        (zipped("../escape"), b"200 OK", "x", r"path '../escape' is not inside the archive"),
    ],
)
def test_tarball_that_cannot_be_run_says_why(
    serve: Callable[..., Scripted], content: bytes, status: bytes, path: str, text: str
) -> None:
    notes = Notes()

    with pytest.raises(ActionFailed, match=text):
        run_tarball(payload(serve(serving(content, status)), path), notes)

    assert notes.texts == [""]  # one heartbeat, ahead of the download


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"url": 1}', '{"arguments": [1]}', '{"environment": {"a": 1}}'])
def test_tarball_needs_a_json_object(text: str) -> None:
    notes = Notes()

    with pytest.raises(ActionFailed, match="invalid json payload for tarball action: "):
        run_tarball(text, notes)

    assert notes.texts == []


def test_unreachable_archive_fails() -> None:
    with pytest.raises(ActionFailed, match=r"failed to retrieve http://127.0.0.1:1/x: .*refused"):
        run_tarball('{"url": "http://127.0.0.1:1/x", "path": "y"}', Notes())


@pytest.mark.parametrize(("timeout_s", "text"), [(0.1, "context deadline exceeded"), (20.0, "context canceled")])
def test_download_without_an_end_ends_with_its_execution(trickle: str, timeout_s: float, text: str) -> None:
    with closing(Task("one", json.dumps({"url": trickle, "path": "x"}), timeout_s, Notes())) as task:
        if timeout_s > 1:
            task.stop("cancelled")
        with pytest.raises(ActionFailed, match=text):
            Execute().tarball(task)


def test_plain_file_keeps_its_well_known_name(tmp_path: Path) -> None:
    (tmp_path / ".download").write_bytes(b"#!/bin/sh\n")

    archives._unpack(str(tmp_path / ".download"), str(tmp_path))

    assert (tmp_path / archives.PLAIN_NAME).exists()

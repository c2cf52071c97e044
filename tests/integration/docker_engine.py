"""A container engine and registries of a test run's own: real ones, on the loopback interface, gone at the end.

DockerEngine() -> dockerd with its own root and socket -> image() from busybox -> Registry(...) to push to and pull from
Needs root and the programs in PROGRAMS (Debian: docker.io, busybox-static, docker-registry).
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import docker

from tests.integration.server import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAMS = ("dockerd", "busybox", "docker-registry")
IMAGE = "arc-test:1"
LIFE_S = "3600"  # a run that is killed leaves no engine for ever
# No bridge and no firewall rules: nothing of the host changes. Published ports work through the engine's own proxy.
DOCKERD = (
    "dockerd",
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
    "--log-level=warn",
)
USER, PASSWORD = "arc", "secret"
HTPASSWD = f"{USER}:$2b$05$4TLtd/hyDiG6xyTV5BYOw.o3lrrC4e2/JbcYTeMRzx6gzMZMxs8r6\n"  # of PASSWORD


def missing() -> str:
    """Why no engine can be started here; empty when one can."""
    if os.geteuid() != 0:
        return "a container engine needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


class DockerEngine:
    """A running dockerd. api: the SDK's client, to look at what is there."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="arc-docker-"))
        self.socket = self._root / "docker.sock"
        self.address = f"unix://{self.socket}"
        self._log = self._root / "log"
        namespace = f"arc-test-{secrets.token_hex(4)}"
        self._process = _background(
            [
                *DOCKERD,
                f"--host={self.address}",
                f"--data-root={self._root}/data",
                f"--exec-root={self._root}/exec",
                f"--pidfile={self._root}/pid",
                f"--containerd-namespace={namespace}",
                f"--containerd-plugins-namespace={namespace}-plugins",
            ],
            self._log,
        )
        try:
            wait_until(self._is_up, f"an engine: {self._log.read_text()[-2000:]}", timeout_s=60)
            self.api = docker.APIClient(base_url=self.address, version="auto")
            self.image(IMAGE)
        except BaseException:
            self.stop()
            raise

    def image(self, name: str, changes: Sequence[str] = ()) -> None:
        """Make an image with busybox in it. changes: lines of a Dockerfile."""
        repository, _, tag = name.rpartition(":")
        data = busybox_archive()
        self.api.import_image_from_data(data, repository=repository, tag=tag, changes=list(changes) or None)

    def push(self, name: str, registry: Registry) -> str:
        """Tag and push an image, drop it here. Returns its name in the registry."""
        remote = f"{registry.address}/{name}"
        repository, _, tag = remote.rpartition(":")
        self.api.tag(IMAGE, repository, tag)
        answer = self.api.push(repository, tag=tag, auth_config={"username": USER, "password": PASSWORD})
        assert "error" not in answer, answer
        self.api.remove_image(remote)
        return remote

    def left_behind(self) -> list[str]:
        """Containers, volumes and networks that somebody made."""
        return [
            *(item["Id"] for item in self.api.containers(all=True)),
            *(item["Name"] for item in self.api.volumes()["Volumes"] or ()),
            *(item["Name"] for item in self.api.networks() if item["Name"] not in ("bridge", "host", "none")),
        ]

    def stop(self) -> None:
        if hasattr(self, "api"):
            self.api.close()
        _end(self._process)
        shutil.rmtree(self._root, ignore_errors=True)

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        with socket.socket(socket.AF_UNIX) as door:
            return door.connect_ex(str(self.socket)) == 0


class Registry:
    """A registry on a port of its own; with is_private only USER may use it."""

    def __init__(self, root: Path, *, is_private: bool = False) -> None:
        root.mkdir(parents=True)
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        (root / "htpasswd").write_text(HTPASSWD)
        auth = f"auth: {{htpasswd: {{realm: arc, path: {root}/htpasswd}}}}\n" if is_private else ""
        (root / "config.yml").write_text(
            f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n"
            f"http: {{addr: '{self.address}'}}\n{auth}"
        )
        self._process = _background(["docker-registry", "serve", str(root / "config.yml")], root / "log")
        wait_until(lambda: _listens(port), "a registry")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        _end(self._process)


class Line:
    """A socket that leads to the engine until it is cut, as if the engine had died."""

    def __init__(self, engine: DockerEngine, path: Path) -> None:
        self._engine = str(engine.socket)
        self.address = f"unix://{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._engine)
                self._ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=_pump, args=(source, target)))
                    self._threads[-1].start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def busybox_archive() -> bytes:
    """A root file system: busybox under all its names."""
    busybox = shutil.which("busybox")
    assert busybox
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for name in ("tmp", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(folder)
    return packed.getvalue()


def _listens(port: int) -> bool:
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) == 0


def _background(args: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            ["timeout", LIFE_S, *args], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """`timeout` passes the signal on to what it runs."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

"""Tasks in containers of the Docker engine.

The engine is looked for when it is first needed, with the usual variables (DOCKER_HOST, DOCKER_TLS_VERIFY,
DOCKER_CERT_PATH, DOCKER_API_VERSION), and the version of its interface is negotiated. Its SDK is imported then too.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arc import clock
from arc.runtimes import hostenv
from arc.runtimes.base import Deadline, RuntimeUnavailable
from arc.runtimes.containers import Attempt, Settings
from arc.runtimes.door import address_of, knock
from arc.runtimes.images import Images
from arc.runtimes.mounts import BindPolicy

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from arc.runtimes.base import Reporter, Stop, Work
    from arc.runtimes.engine import Engine


@dataclass(frozen=True)
class DockerOptions:
    """host: address of the engine, empty for DOCKER_HOST or the usual socket.

    config: file with credentials of registries, empty for ~/.docker/config.json. privileged: all containers are.

    image_ttl_s: seconds without use after which prune() removes an image. image_verify: try each image after its pull.
    bind_allowed, bind_sources: see mounts.BindPolicy. host_env: NAME or NAME:ALIAS. result_bytes: the largest result.
    progress_s: seconds between two looks at the progress file.
    """

    host: str = ""
    config: str = ""
    privileged: bool = False
    image_ttl_s: float = 72 * 3600.0
    image_verify: bool = False
    bind_allowed: bool = False
    bind_sources: tuple[str, ...] = ()
    host_env: tuple[str, ...] = ()
    result_bytes: int = 1 << 16
    progress_s: float = 10.0


class DockerRuntime:
    """instance: marks the containers of this installation, so that its next start finds what a crash left.

    Raises ConfigError.
    """

    name = "docker"

    def __init__(self, options: DockerOptions, instance: str) -> None:
        self._options = options
        self._instance = instance
        self._host_env = hostenv.parse(options.host_env)
        self._images = Images(options.config, options.image_verify)
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._running: set[str] = set()  # task ids

    def run(self, work: Work, reporter: Reporter, stop: Stop) -> str:
        deadline = Deadline(stop, work.timeout_s)
        deadline.check()
        engine = self._connected()
        settings = Settings(
            instance=self._instance,
            policy=BindPolicy(self._options.bind_allowed, self._options.bind_sources, _sockets(engine.address)),
            host_env=self._host_env,
            privileged=self._options.privileged,
            result_bytes=self._options.result_bytes,
            progress_s=self._options.progress_s,
        )
        with self._registered(work.task_id):
            return Attempt(engine, self._images, settings, work, reporter, deadline).run()

    def check_health(self) -> None:
        self._connected()

    def reap(self, keep: Collection[str] = ()) -> int:
        strays = self._connected().strays(self._instance)
        dead = [remove for task_id, remove in strays if task_id not in keep and not self._is_running(task_id)]
        for remove in dead:
            remove()
        return len(dead)

    def prune(self, now_us: int) -> int:
        """Remove images that this process used and nobody needed for image_ttl_s; not while a task runs."""
        engine = self._connected()
        with self._lock:  # no task starts meanwhile
            if self._running:
                return 0
            return self._images.prune(engine, now_us - int(self._options.image_ttl_s * clock.US_PER_S))

    def close(self) -> None:
        with self._lock:
            if self._engine is not None:
                self._engine.close()
                self._engine = None

    def _connected(self) -> Engine:
        """An engine that answers. Raises RuntimeUnavailable."""
        with self._lock:
            engine = self._engine
            if engine is None:
                knock(address_of(self._options.host))
                from arc.runtimes.engine import Engine  # with the SDK, when there is something to talk to

                engine = self._engine = Engine(self._options.host)
                return engine
        try:
            engine.ping()
        except RuntimeUnavailable:
            self.close()  # the next engine may speak another version
            raise
        return engine

    @contextmanager
    def _registered(self, task_id: str) -> Iterator[None]:
        with self._lock:
            self._running.add(task_id)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(task_id)

    def _is_running(self, task_id: str) -> bool:
        with self._lock:
            return task_id in self._running


def _sockets(address: str) -> tuple[str, ...]:
    return (address.removeprefix("unix://"),) if address.startswith("unix://") else ()

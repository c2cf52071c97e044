"""Images of this process's tasks: pulled one at a time, remembered, removed when nobody used them for long."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from arc import clock
from arc.runtimes.background import Background
from arc.runtimes.base import TaskFailed
from arc.runtimes.names import labels
from arc.runtimes.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arc.runtimes.base import Deadline, Registry, Reporter
    from arc.runtimes.engine import Engine

TURN_S = 0.1  # seconds between two looks at the deadline while another image is pulled

log = logging.getLogger(__name__)


class Images:
    """config: path of the client's file with credentials, empty for its usual place. Any thread may call it."""

    def __init__(self, config: str, verify: bool, instance: str) -> None:
        self._config = config
        self._verify = verify
        self._instance = instance
        self._pulling = threading.Lock()
        self._used: dict[str, int] = {}  # name as in the job -> microseconds of its last use

    def ensure(
        self, engine: Engine, image: str, registry: Registry | None, deadline: Deadline, reporter: Reporter
    ) -> None:
        """Pull an image unless it is here. Raises TaskFailed.

        A name without a tag is pulled at its first use in each process, so that it is not old for ever.
        """
        if not image:
            raise TaskFailed("error pulling image: repository name must have at least one component")
        names = engine.image_names(image)
        if names is None or not (image in names or image in self._used):
            with self._turn(deadline), closing(Output(reporter)) as output:
                self._pull(engine, image, registry, deadline, output)
        self._used[image] = clock.now_us()

    def prune(self, engine: Engine, unused_since_us: int) -> int:
        """Remove images of this process whose last use is older; one that a container needs stays."""
        old = [image for image, used_at in list(self._used.items()) if used_at < unused_since_us]
        removed = [image for image in old if engine.remove_image(image)]
        for image in old:
            del self._used[image]
        return len(removed)

    def _pull(self, engine: Engine, image: str, registry: Registry | None, deadline: Deadline, output: Output) -> None:
        def on_line(line: bytes) -> None:
            deadline.check()  # raises in the thread of the pull too, which then closes its connection
            output.add(line)

        auth = self._auth(engine, image, registry)
        Background("image pull", lambda: engine.pull(image, auth, on_line)).result(deadline)
        if self._verify:
            self._check(engine, image, output)

    def _auth(self, engine: Engine, image: str, registry: Registry | None) -> Mapping[str, str] | None:
        if registry is not None and registry.username:
            return {"username": registry.username, "password": registry.password}
        return engine.credentials(self._config, image)

    def _check(self, engine: Engine, image: str, output: Output) -> None:
        """Whether a container can be made of an image."""
        output.add(f"verifying image {image}\n".encode())
        started = time.monotonic()
        try:
            container = engine.create_container({"Image": image, "Cmd": ["true"], "Labels": labels(self._instance)})
        except TaskFailed as exc:
            engine.remove_image(image)
            raise TaskFailed(f"image {image} is invalid or corrupted: {exc}") from exc
        engine.remove_container(container)
        output.add(f"image {image} verified in {time.monotonic() - started:.2f}s\n".encode())

    @contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        while not self._pulling.acquire(timeout=TURN_S):
            deadline.check()
        try:
            yield
        finally:
            self._pulling.release()

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
from arc.runtimes.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arc.runtimes.base import Deadline, Reporter, Step
    from arc.runtimes.engine import Engine

TURN_S = 0.1  # seconds between two looks at the deadline while another image is pulled

log = logging.getLogger(__name__)


class Images:
    """config: path of the client's file with credentials, empty for its usual place. Any thread may call it."""

    def __init__(self, config: str, verify: bool) -> None:
        self._config = config
        self._verify = verify
        self._pulling = threading.Lock()
        self._used: dict[str, int] = {}  # name as in the job -> microseconds of its last use

    def ensure(
        self, engine: Engine, step: Step, deadline: Deadline, reporter: Reporter, labels: Mapping[str, str]
    ) -> None:
        """Pull the image of a step unless it is here. labels: for what is made to verify it. Raises TaskFailed.

        A name without a tag is pulled at its first use in each process, so that it is not old for ever.
        """
        if not step.image:
            raise TaskFailed("error pulling image: repository name must have at least one component")
        if not self._is_here(engine, step.image):
            with self._turn(deadline), closing(Output(reporter)) as output:
                if not self._is_here(engine, step.image):  # another task has pulled it meanwhile
                    self._pull(engine, step, deadline, output)
                    if self._verify:
                        _check(engine, step.image, output, labels)
                self._used[step.image] = clock.now_us()  # before the next one's turn
        self._used[step.image] = clock.now_us()

    def prune(self, engine: Engine, unused_since_us: int) -> int:
        """Remove images of this process whose last use is older; one that a container needs stays."""
        old = [image for image, used_at in list(self._used.items()) if used_at < unused_since_us]
        removed = [image for image in old if engine.remove_image(image)]
        for image in old:
            del self._used[image]
        return len(removed)

    def _is_here(self, engine: Engine, image: str) -> bool:
        names = engine.image_names(image)
        return names is not None and (image in names or image in self._used)

    def _pull(self, engine: Engine, step: Step, deadline: Deadline, output: Output) -> None:
        def on_line(line: bytes) -> None:
            deadline.check()  # raises in the thread of the pull too, which then closes its connection
            output.add(line)

        auth = self._auth(engine, step)
        Background("image pull", lambda: engine.pull(step.image, auth, on_line)).result(deadline)

    def _auth(self, engine: Engine, step: Step) -> Mapping[str, str] | None:
        if step.registry is not None and step.registry.username:
            return {"username": step.registry.username, "password": step.registry.password}
        return engine.credentials(self._config, step.image)

    @contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        while not self._pulling.acquire(timeout=TURN_S):
            deadline.check()
        try:
            yield
        finally:
            self._pulling.release()


def _check(engine: Engine, image: str, output: Output, labels: Mapping[str, str]) -> None:
    """Whether a container can be made of an image."""
    output.add(f"verifying image {image}\n".encode())
    started = time.monotonic()
    try:
        container = engine.create_container({"Image": image, "Cmd": ["true"], "Labels": dict(labels)})
    except TaskFailed as exc:
        engine.remove_image(image)
        raise TaskFailed(f"image {image} is invalid or corrupted: {exc}") from exc
    engine.remove_container(container)
    output.add(f"image {image} verified in {time.monotonic() - started:.2f}s\n".encode())

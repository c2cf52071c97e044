"""One attempt of a task in containers.

network -> mounts -> pre ... -> main (sidecars beside it) -> post ... -> everything removed, in reverse

For each container: image -> volume for /tork -> create -> files -> start -> output and exit awaited -> result read
What is made is registered for removal in the same breath, so nothing stays on any path; all of it carries labels.
"""

from __future__ import annotations

import io
import secrets
import tarfile
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from arc.runtimes import hostenv, limits, mounts, probe
from arc.runtimes.background import Background
from arc.runtimes.base import TaskFailed, TaskStopped
from arc.runtimes.names import labels, relative_name, slug
from arc.runtimes.output import PROGRESS_BYTES, Output, Progress, result_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from arc.runtimes.base import Deadline, Mount, Reporter, Sidecar, Step, Work
    from arc.runtimes.engine import Engine
    from arc.runtimes.images import Images
    from arc.runtimes.mounts import BindPolicy

HOME = "/tork"
SCRIPT, RESULT, PROGRESS = "entrypoint", "stdout", "progress"  # in HOME
DEFAULT_WORKDIR = f"{HOME}/workdir"  # of a step with files
DRAIN_S = 10.0  # seconds the last output may take after the end of its container


@dataclass(frozen=True)
class Settings:
    """What is the same for all containers of a runtime. host_env: name in the container -> name on the host."""

    instance: str
    policy: BindPolicy
    host_env: Mapping[str, str]
    privileged: bool
    result_bytes: int
    progress_s: float


class Attempt:
    """run() once, in one thread."""

    def __init__(
        self,
        engine: Engine,
        images: Images,
        settings: Settings,
        work: Work,
        reporter: Reporter,
        deadline: Deadline,
    ) -> None:
        self._engine = engine
        self._images = images
        self._settings = settings
        self._work = work
        self._reporter = reporter
        self._deadline = deadline
        self._labels = labels(settings.instance, work.task_id, work.job_id)
        self._networks: list[str] = list(work.networks)
        self._mounts: list[dict[str, Any]] = []

    def run(self) -> str:
        """The result of the main step. Raises TaskFailed."""
        self._deadline.check()
        _refuse_shared_networks(self._networks)
        with ExitStack() as cleanup:
            if self._work.sidecars:
                self._networks.append(self._new_network(cleanup))
            for mount in self._work.mounts:
                self._mounts.append(self._prepare(mount, cleanup))
            for step in self._work.pre:
                self._run_step(step)
            result = self._run_main()
            for step in self._work.post:
                self._run_step(step)
        return result

    def _new_network(self, cleanup: ExitStack) -> str:
        name = secrets.token_hex(16)
        self._engine.create_network(name, self._labels)
        cleanup.callback(self._engine.remove_network, name)
        return name

    def _prepare(self, mount: Mount, cleanup: ExitStack) -> dict[str, Any]:
        return mounts.prepare(mount, self._settings.policy, lambda volume: self._new_volume(cleanup, volume.opts))

    def _new_volume(self, cleanup: ExitStack, options: Mapping[str, str]) -> str:
        name = self._engine.create_volume(self._labels, options)
        cleanup.callback(self._engine.remove_volume, name)
        return name

    def _run_step(self, step: Step) -> None:
        deadline = self._deadline.within(step.timeout_s)
        with ExitStack() as cleanup:
            self._follow(self._create(step, deadline, cleanup, self._host_env()), deadline)

    def _run_main(self) -> str:
        step = self._work.main
        deadline = self._deadline.within(step.timeout_s)
        extra = {"DeviceRequests": limits.device_requests(self._work.gpus)}
        with ExitStack() as cleanup:
            container = self._create(step, deadline, cleanup, self._host_env(), self._work.workdir, extra)
            for sidecar in self._work.sidecars:
                deadline = self._start_sidecar(sidecar, deadline, cleanup)
            self._follow(container, deadline)
            return self._result(container)

    def _start_sidecar(self, sidecar: Sidecar, deadline: Deadline, cleanup: ExitStack) -> Deadline:
        """What the main step has left: a sidecar that runs longer than it may ends the task."""
        deadline = deadline.within(sidecar.step.timeout_s)
        extra = {} if sidecar.probe is None else {"PortBindings": _published(sidecar.probe.port)}
        with _prefixed("error creating sidecar container"):
            container = self._create(sidecar.step, deadline, cleanup, {}, extra=extra)
        with _prefixed("error starting sidecar container"):
            if sidecar.probe is None:
                self._engine.start(container)
            else:
                with closing(_Stream(self._engine, container, self._reporter)) as stream:
                    self._engine.start(container)
                    probe.wait_until_ready(self._engine, container, sidecar.probe, deadline, stream.output)
        return deadline

    def _create(
        self,
        step: Step,
        deadline: Deadline,
        cleanup: ExitStack,
        env: Mapping[str, str],
        workdir: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """A container with its files that is not started yet. extra: host configuration of this one alone."""
        deadline.check()
        self._images.ensure(self._engine, step, deadline, self._reporter, self._labels)
        deadline.check()
        workdir = workdir or (DEFAULT_WORKDIR if step.files else "")
        volume = self._new_volume(cleanup, {})
        config = self._config(step, volume, {**step.env, **env}, workdir, extra or {})
        container = self._engine.create_container(config)
        cleanup.callback(self._engine.remove_container, container)
        for network in self._networks[1:]:  # older engines take one network at the creation
            self._engine.connect(container, network, _aliases(step))
        for path, files in _files(step, workdir).items():
            self._engine.put(container, path, archive(files))
        return container

    def _config(
        self, step: Step, volume: str, env: Mapping[str, str], workdir: str, extra: Mapping[str, Any]
    ) -> dict[str, Any]:
        entrypoint, cmd = command(step)
        host: dict[str, Any] = {
            "Mounts": [*self._mounts, {"Type": "volume", "Source": volume, "Target": HOME}],
            "NanoCpus": limits.nano_cpus(self._work.limits.cpus),
            "Memory": limits.memory_bytes(self._work.limits.memory),
            "Privileged": self._settings.privileged,
            "LogConfig": {"Type": "none"},  # the output is read from the container; a copy would fill the disk
            **extra,
        }
        config: dict[str, Any] = {
            "Image": step.image,
            "Env": [f"{name}={value}" for name, value in {**env, **_places()}.items()],
            "Entrypoint": entrypoint,
            "Cmd": cmd,
            "WorkingDir": workdir,
            "Labels": self._labels,
            "ExposedPorts": {port: {} for port in extra.get("PortBindings", {})},
            "HostConfig": host,
        }
        if self._networks:
            host["NetworkMode"] = self._networks[0]
            config["NetworkingConfig"] = {"EndpointsConfig": {self._networks[0]: {"Aliases": _aliases(step)}}}
        return config

    def _follow(self, container: str, deadline: Deadline) -> None:
        """Start a container and wait for its end. Raises TaskFailed unless it ends with 0."""
        progress = Progress(self._reporter, self._work.task_id)

        def look() -> None:
            with suppress(TaskFailed):  # the next look may succeed, and the end of the container tells more
                progress.update(self._read(container, PROGRESS, PROGRESS_BYTES)[0])

        with closing(_Stream(self._engine, container, self._reporter)) as stream:
            self._engine.start(container)
            waiter = Background("container exit", lambda: self._engine.wait(container))
            try:
                status = waiter.result(deadline, look, self._settings.progress_s)
            except BaseException:
                self._engine.remove_container(container)  # ends the wait and the output
                raise
            finally:
                waiter.join(DRAIN_S)
                stream.drain()
        if status != 0:
            raise TaskFailed(f"exit code {status}: {stream.output.tail()}")

    def _result(self, container: str) -> str:
        data, size_bytes = self._read(container, RESULT, self._settings.result_bytes)
        return result_text(data, size_bytes, self._settings.result_bytes)

    def _read(self, container: str, name: str, max_bytes: int) -> tuple[bytes, int]:
        """Content and size of one of our files; nothing when the task replaced it by something else."""
        packed, size_bytes = self._engine.get(container, f"{HOME}/{name}", max_bytes)
        return _first_file(packed), size_bytes

    def _host_env(self) -> dict[str, str]:
        return hostenv.values(self._settings.host_env)


class _Stream:
    """Output of a container, passed on from before its start until its end or close()."""

    def __init__(self, engine: Engine, container: str, reporter: Reporter) -> None:
        self.output = Output(reporter)
        self._attached = engine.attach(container)
        self._reader = Background("container output", self._read)

    def drain(self) -> None:
        """Wait for what a container that ended has written last. Raises what the reporter raised."""
        self._reader.join(DRAIN_S)
        if self._reader.error is not None:
            raise self._reader.error

    def close(self) -> None:
        self._attached.stop()
        self._reader.join(DRAIN_S)
        self.output.close()

    def _read(self) -> None:
        for data in self._attached:
            self.output.add(data)


def command(step: Step) -> tuple[list[str] | None, list[str] | None]:
    """Entrypoint and command; None is the image's own. A script is run by its path, so its `#!` line counts."""
    entrypoint, cmd = list(step.entrypoint) or None, list(step.cmd) or None
    if step.run:
        return entrypoint or ["sh", "-c"], cmd or [f"{HOME}/{SCRIPT}"]
    return entrypoint, cmd


def archive(files: Iterable[tuple[str, str, int]]) -> bytes:
    """A tar archive of (relative path, content, mode), with the directories it needs."""
    packed = io.BytesIO()
    directories: set[str] = set()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content, mode in files:
            for parent in reversed(relative_name(name).parents[:-1]):
                if str(parent) not in directories:
                    directories.add(str(parent))
                    tar.addfile(_entry(str(parent), tarfile.DIRTYPE, 0o755))
            data = content.encode("utf-8", "replace")
            tar.addfile(_entry(name, tarfile.REGTYPE, mode, len(data)), io.BytesIO(data))
    return packed.getvalue()


def _files(step: Step, workdir: str) -> dict[str, list[tuple[str, str, int]]]:
    """Where an archive is unpacked -> what is in it. As few as possible: each takes the engine a tenth of a second."""
    ours = [(RESULT, "", 0o222), (PROGRESS, "", 0o222)]
    if step.run:
        ours.append((SCRIPT, step.run, 0o555))
    names = {name: str(relative_name(name)) for name in step.files}
    if workdir == DEFAULT_WORKDIR:
        prefix = PurePosixPath(workdir).name
        return {HOME: ours + [(f"{prefix}/{names[name]}", text, 0o444) for name, text in step.files.items()]}
    theirs = [(names[name], text, 0o444) for name, text in step.files.items()]
    return {HOME: ours, workdir: theirs} if theirs else {HOME: ours}


def _entry(name: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.mtime = kind, mode, size, int(time.time())
    return entry


def _first_file(packed: bytes) -> bytes:
    if not packed:
        return b""
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        member = tar.next()
        file = tar.extractfile(member) if member is not None and member.isfile() else None
        return b"" if file is None else file.read()


def _places() -> dict[str, str]:
    return {
        f"{prefix}_{what}": f"{HOME}/{name}"
        for prefix in ("TORK", "ARC")
        for what, name in (("OUTPUT", RESULT), ("PROGRESS", PROGRESS))
    }


def _aliases(step: Step) -> list[str]:
    """Never none: with an alias the engine takes only networks that somebody made, not the one of the host."""
    return [slug(step.name) or "task"]


def _refuse_shared_networks(networks: Iterable[str]) -> None:
    """The network of the host, or of another container, is not a task's to choose."""
    for network in networks:
        if network == "host" or ":" in network:
            raise TaskFailed(f"network {network} is not allowed")


def _published(port: int) -> dict[str, list[dict[str, str]]]:
    return {f"{port}/tcp": [{"HostIp": probe.HOST, "HostPort": ""}]}


@contextmanager
def _prefixed(what: str) -> Iterator[None]:
    try:
        yield
    except TaskStopped:
        raise
    except TaskFailed as exc:
        raise TaskFailed(f"{what}: {exc}") from exc

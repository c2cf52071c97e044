"""Tasks in containers of a real engine, with images from real registries."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from docker.transport.unixconn import UnixHTTPConnection

from arc import clock
from arc.runtimes.base import (
    DEADLINE_EXCEEDED,
    Limits,
    Mount,
    Probe,
    Registry,
    RuntimeUnavailable,
    Sidecar,
    Step,
    Stop,
    TaskFailed,
    TaskStopped,
)
from arc.runtimes.docker import DockerOptions, DockerRuntime
from arc.runtimes.engine import Engine
from tests.integration import docker_engine
from tests.integration.docker_engine import IMAGE, PASSWORD, USER, DockerEngine
from tests.runtime_contract import TASK, Recorder, RuntimeContract, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def engine(container_engine: DockerEngine) -> DockerEngine:
    return container_engine


@pytest.fixture(scope="module", autouse=True)
def no_socket_is_forgotten() -> Iterator[None]:
    """The SDK leaves the socket of a connection open that it could not make; a later test would be blamed for it."""

    def connect(self: UnixHTTPConnection) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_socket)  # urllib3 closes self.sock when this fails

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnixHTTPConnection, "connect", connect)
        yield


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker_engine.Registry]:
    with docker_engine.Registry(tmp_path_factory.mktemp("registry") / "open") as started:
        yield started


@pytest.fixture(scope="module")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker_engine.Registry]:
    with docker_engine.Registry(tmp_path_factory.mktemp("registry") / "private", is_private=True) as started:
        yield started


@pytest.fixture
def make_runtime(engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DockerRuntime]]:
    """Runtimes on the engine; whatever a test did, they leave nothing behind on it."""
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    made: list[DockerRuntime] = []

    def make(instance: str = "test", **options: Any) -> DockerRuntime:
        made.append(DockerRuntime(DockerOptions(**options), instance))
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()
    assert not engine.left_behind()


class TestDockerRuntime(RuntimeContract):
    STEP: ClassVar[dict[str, Any]] = {"image": IMAGE}

    def inspected(self, engine: DockerEngine, runtime: DockerRuntime, **fields: Any) -> dict[str, Any]:
        """What the engine knows about the container of a running task."""
        stop, recorder = Stop(), Recorder()
        found: list[dict[str, Any]] = []

        def look() -> None:
            (container,) = engine.api.containers(all=True, filters={"label": f"arc.task={TASK}"})
            found.append(engine.api.inspect_container(container["Id"]))
            stop.set()

        recorder.on_log = look
        with pytest.raises(TaskStopped):
            runtime.run(self.work("echo started; sleep 60", **fields), recorder, stop)
        return found[0]

    def test_failure_without_output(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        error, _ = self.fails(make_runtime(), self.work("exit 4"))

        assert error == "exit code 4: "

    def test_container_is_labelled(self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime]) -> None:
        found = self.inspected(engine, make_runtime())

        assert found["Config"]["Labels"] == {"arc.instance": "test", "arc.task": TASK, "arc.job": "job"}

    def test_processes_of_a_timed_out_task_are_gone(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime]
    ) -> None:
        error, _ = self.fails(make_runtime(), self.work("trap '' TERM; sleep 60", timeout_s=0.5))

        assert error == DEADLINE_EXCEEDED
        assert not engine.left_behind()

    def test_task_can_be_cancelled_while_another_pulls(
        self, make_runtime: Callable[..., DockerRuntime], registry: docker_engine.Registry, engine: DockerEngine
    ) -> None:
        runtime, stop = make_runtime(), Stop()
        threading.Timer(0.3, stop.set).start()

        with runtime._images._pulling, pytest.raises(TaskStopped):
            runtime.run(self.work(self.step("true", image="127.0.0.1:1/absent:1")), Recorder(), stop)

    # pre, post, mounts

    def test_steps_share_the_volumes_of_the_task(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        work = self.work(
            "cat /shared/a > $ARC_OUTPUT; echo main > /shared/b",
            pre=(self.step("echo pre > /shared/a"),),
            post=(self.step("cat /shared/b"),),
            mounts=(Mount("volume", target="/shared"),),
        )

        result, recorder = self.run(make_runtime(), work)

        assert (result, recorder.text) == ("pre\n", "main\n")

    def test_volume_takes_driver_options(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        opts = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}

        _, recorder = self.run(
            make_runtime(), self.work("grep ' /x ' /proc/mounts", mounts=(Mount("volume", target="/x", opts=opts),))
        )

        assert "tmpfs" in recorder.text
        assert "size=1024k" in recorder.text

    def test_tmpfs_belongs_to_one_container(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        script, mounts = "ls /x; grep -c ' /x tmpfs' /proc/mounts", (Mount("tmpfs", target="/x"),)
        work = self.work(script, pre=(self.step("touch /x/a"),), mounts=mounts)

        _, recorder = self.run(make_runtime(), work)

        assert recorder.text == "1\n"

    def test_bind_mount_stays_and_is_created_when_missing(
        self, make_runtime: Callable[..., DockerRuntime], tmp_path: Path
    ) -> None:
        source = tmp_path / "made" / "here"
        runtime = make_runtime(bind_allowed=True, bind_sources=(str(source),))

        self.run(runtime, self.work("echo kept > /data/f", mounts=(Mount("bind", str(source), "/data"),)))

        assert (source / "f").read_text() == "kept\n"
        assert stat.S_IMODE(source.stat().st_mode) == 0o707

    def test_bind_mount_that_is_not_listed(self, make_runtime: Callable[..., DockerRuntime], tmp_path: Path) -> None:
        work = self.work("true", mounts=(Mount("volume", target="/v"), Mount("bind", f"{tmp_path}/x", "/data")))

        assert self.fails(make_runtime(), work)[0] == "bind mounts are not allowed"
        runtime = make_runtime(bind_allowed=True, bind_sources=("/srv",))
        assert self.fails(runtime, work)[0] == f"src bind mount is not allowed: {tmp_path}/x"
        assert not (tmp_path / "x").exists()

    def test_engine_socket_is_refused(self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime]) -> None:
        mounts = (Mount("bind", str(engine.socket), "/engine.sock"),)

        error, _ = self.fails(make_runtime(bind_allowed=True), self.work("true", mounts=mounts))

        assert error == f"src bind mount is not allowed: {engine.socket}"

    # what runs in a container

    def test_working_directory_of_files(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        step = self.step("pwd; cat sub/f", files={"sub/f": "x\n"})

        _, default = self.run(make_runtime(), self.work(step))
        _, own = self.run(make_runtime(), self.work(step, workdir="/made/for/it"))
        _, none = self.run(make_runtime(), self.work("pwd"))

        assert default.text == "/tork/workdir\nx\n"
        assert own.text == "/made/for/it\nx\n"
        assert none.text == "/\n"

    def test_environment(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        env = {"OWN": "a=b c", "TORK_OUTPUT": "/elsewhere"}

        _, recorder = self.run(make_runtime(), self.work(self.step("env", env=env)))

        found = dict(line.split("=", 1) for line in recorder.text.splitlines())
        assert found["OWN"] == "a=b c"
        assert found["TORK_OUTPUT"] == found["ARC_OUTPUT"] == "/tork/stdout"
        assert found["TORK_PROGRESS"] == found["ARC_PROGRESS"] == "/tork/progress"

    def test_nothing_stays_when_a_container_cannot_be_made(
        self, make_runtime: Callable[..., DockerRuntime], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def put(*_: Any) -> None:
            raise TaskFailed("no space")

        not_a_directory, _ = self.fails(make_runtime(), self.work("true", workdir="/bin/busybox"))
        monkeypatch.setattr(Engine, "put", put)
        not_copied, _ = self.fails(make_runtime(), self.work("true"))

        assert not_a_directory.startswith("error creating container: ")
        assert not_copied == "no space"

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"run": "echo script"}, "script\n"),
            ({"run": "echo script", "cmd": ("cat /tork/entrypoint",)}, "echo script"),
            ({"run": "echo script", "entrypoint": ("cat",)}, "echo script"),
            ({"cmd": ("b", "c"), "entrypoint": ("echo", "a")}, "a b c\n"),
            ({"cmd": ("echo", "x")}, "x\n"),
        ],
    )
    def test_script_command_and_entrypoint(
        self, make_runtime: Callable[..., DockerRuntime], fields: dict[str, Any], text: str
    ) -> None:
        _, recorder = self.run(make_runtime(), self.work(Step(image=IMAGE, **fields)))

        assert recorder.text == text

    def test_entrypoint_and_command_of_the_image(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime]
    ) -> None:
        engine.image("own-entrypoint:1", changes=['ENTRYPOINT ["echo", "entry"]', 'CMD ["default"]'])
        runtime = make_runtime()

        _, default = self.run(runtime, self.work(Step(image="own-entrypoint:1")))
        _, given = self.run(runtime, self.work(Step(image="own-entrypoint:1", cmd=("given",))))

        assert (default.text, given.text) == ("entry default\n", "entry given\n")

    def test_failing_start_names_the_container_and_the_cause(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        error, _ = self.fails(make_runtime(), self.work(Step(image=IMAGE, cmd=("no-such-program",))))

        start, _, cause = error.partition(": ")
        assert start.startswith("error starting container ")
        assert len(start.rpartition(" ")[2]) == 64
        assert cause.count("no-such-program") == 1

    # limits and devices

    def test_limits_are_set_on_the_container(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime]
    ) -> None:
        found = self.inspected(engine, make_runtime(), limits=Limits(cpus=".5", memory="20m"))

        assert found["HostConfig"]["NanoCpus"] == 500_000_000
        assert found["HostConfig"]["Memory"] == 20 << 20
        assert not found["HostConfig"]["Privileged"]

    @pytest.mark.parametrize(
        ("limits", "error"),
        [
            (Limits(cpus="many"), "invalid CPUs value: failed to parse many as a rational number"),
            (Limits(cpus="1/3"), "invalid CPUs value: value is too precise"),
            (Limits(memory="much"), "invalid memory value: invalid size: 'much'"),
            (Limits(memory="1k"), "Error response from daemon: Minimum memory limit"),
        ],
    )
    def test_bad_limits(self, make_runtime: Callable[..., DockerRuntime], limits: Limits, error: str) -> None:
        found, _ = self.fails(make_runtime(), self.work("true", limits=limits))

        assert error in found

    def test_task_that_needs_too_much_memory_is_killed(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        work = self.work("dd if=/dev/zero of=/dev/null bs=64M", limits=Limits(memory="10m"))

        error, _ = self.fails(make_runtime(), work)

        assert error.startswith("exit code 137: ")

    def test_gpus_are_asked_for(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        error, _ = self.fails(make_runtime(), self.work("true", gpus="count=1,driver=none-such"))

        assert "could not select device driver" in error
        assert self.fails(make_runtime(), self.work("true", gpus="foo=bar"))[0] == (
            "error setting GPUs: unexpected key 'foo' in 'foo=bar'"
        )

    def test_privileged(self, make_runtime: Callable[..., DockerRuntime], monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []

        def create(_: Engine, config: Any) -> str:
            asked.append(config["HostConfig"]["Privileged"])
            raise TaskFailed("not every host may start one")

        monkeypatch.setattr(Engine, "create_container", create)
        self.fails(make_runtime(), self.work("true"))
        self.fails(make_runtime(privileged=True), self.work("true"))

        assert asked == [False, True]

    # networks, sidecars

    def test_networks_know_the_task_by_its_slug(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime]
    ) -> None:
        networks = ("arc-one", "arc-two")
        for network in networks:
            engine.api.create_network(network)
        try:
            main = self.step("echo started; sleep 60", name="My Täsk #1")
            found = self.inspected(engine, make_runtime(), networks=networks, main=main)
        finally:
            for network in networks:
                engine.api.remove_network(network)

        ends = found["NetworkSettings"]["Networks"]
        assert set(ends) == set(networks)
        assert all("my-task-1" in end["Aliases"] for end in ends.values())

    def test_unknown_network(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        error, _ = self.fails(make_runtime(), self.work("true", networks=("no-such-net",)))

        assert "network no-such-net not found" in error

    @pytest.mark.parametrize("network", ["host", "container:any", "none", "HOST_ID"])
    def test_network_of_the_host_is_refused(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime], network: str
    ) -> None:
        if network == "HOST_ID":
            network = engine.api.networks(names=["host"])[0]["Id"]

        error, recorder = self.fails(make_runtime(), self.work(self.step("echo in", name="#"), networks=(network,)))

        assert "is not allowed" in error or "user defined networks" in error
        assert recorder.text == ""

    def test_sidecar_is_ready_before_the_task_and_reachable_by_its_slug(
        self, make_runtime: Callable[..., DockerRuntime]
    ) -> None:
        serve = "sleep 1; mkdir /www; echo served > /www/ready; exec httpd -f -p 8080 -h /www"
        sidecar = Sidecar(self.step(serve, name="My Web"), Probe("/ready", 8080))

        result, recorder = self.run(
            make_runtime(), self.work("wget -q -O $ARC_OUTPUT http://my-web:8080/ready", sidecars=(sidecar,))
        )

        assert result == "served\n"
        assert "Retrying..." in recorder.text

    def test_probe_that_never_succeeds(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        serve = "echo from the sidecar; exec httpd -f -p 8080 -h /tmp"
        sidecar = Sidecar(self.step(serve, name="web"), Probe("/ready", 8080, timeout_s=1.5))

        error, recorder = self.fails(make_runtime(), self.work("echo main", sidecars=(sidecar,)))

        assert error.startswith("error starting sidecar container: error waiting for container ")
        assert error.endswith(" to be ready: probe timed out after 1.5s")
        assert "returned status code 404. Retrying...\n" in recorder.text
        assert "from the sidecar" in recorder.text
        assert "main" not in recorder.text

    def test_sidecar_that_ends_before_it_is_ready(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        sidecar = Sidecar(self.step("exit 1"), Probe("/", 8080))

        error, _ = self.fails(make_runtime(), self.work("true", sidecars=(sidecar,)))

        assert error.endswith("it does not run")

    def test_sidecar_without_a_probe_may_end(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        result, _ = self.run(
            make_runtime(), self.work("echo x > $ARC_OUTPUT", sidecars=(Sidecar(self.step("exit 1")),))
        )

        assert result == "x\n"

    def test_sidecar_that_cannot_be_made(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        sidecar = Sidecar(self.step("true", image="127.0.0.1:1/absent:1"))

        error, _ = self.fails(make_runtime(), self.work("true", sidecars=(sidecar,)))

        assert error.startswith("error creating sidecar container: error pulling image: 127.0.0.1:1/absent:1: ")

    def test_sidecars_are_gone_before_post_steps(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime]
    ) -> None:
        seen: list[int] = []
        recorder = Recorder()
        recorder.on_log = lambda: seen.append(len(engine.api.containers(all=True)))
        work = self.work("echo main", post=(self.step("echo post"),), sidecars=(Sidecar(self.step("sleep 60")),))

        make_runtime().run(work, recorder, Stop())

        assert seen == [2, 1]

    def test_timeout_of_a_sidecar_ends_the_task(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        sidecar = Sidecar(self.step("sleep 60", timeout_s=1))

        error, _ = self.fails(make_runtime(), self.work("sleep 60", sidecars=(sidecar,)))

        assert error == DEADLINE_EXCEEDED

    # images

    def test_missing_image_is_pulled_once_and_its_progress_logged(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime], registry: docker_engine.Registry
    ) -> None:
        image = engine.push("pulled:1", registry)
        runtime = make_runtime()

        _, first = self.run(runtime, self.work(self.step("echo one", image=image)))
        _, second = self.run(runtime, self.work(self.step("echo two", image=image)))

        *progress, last = first.text.splitlines()
        assert last == "one"
        assert any("Status: Downloaded newer image" in json.loads(line).get("status", "") for line in progress)
        assert second.text == "two\n"

    def test_tasks_that_need_the_same_image_pull_it_once(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime], registry: docker_engine.Registry
    ) -> None:
        image = engine.push("shared:1", registry)
        runtime = make_runtime()

        with ThreadPoolExecutor(3) as pool:
            work = [self.work(self.step("true", image=image), task_id=f"task{number}") for number in range(3)]
            recorders = [recorder for _, recorder in pool.map(lambda each: self.run(runtime, each), work)]

        assert sum("Status: " in recorder.text for recorder in recorders) == 1

    def test_registry_that_does_not_answer_is_not_waited_for(self, make_runtime: Callable[..., DockerRuntime]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            step = self.step("true", image=f"127.0.0.1:{silent.getsockname()[1]}/any:1")

            error, _ = self.fails(make_runtime(), self.work(step, timeout_s=0.5))

        assert error == DEADLINE_EXCEEDED

    def test_image_without_a_tag_is_pulled_once_per_process(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime], registry: docker_engine.Registry
    ) -> None:
        image = engine.push("untagged:latest", registry).removesuffix(":latest")
        self.run(make_runtime(), self.work(self.step("true", image=image)))
        runtime = make_runtime()

        _, first = self.run(runtime, self.work(self.step("true", image=image)))
        _, second = self.run(runtime, self.work(self.step("true", image=image)))

        assert "Image is up to date" in first.text
        assert second.text == ""

    @pytest.mark.parametrize(
        ("image", "cause"),
        [
            ("", "repository name must have at least one component"),
            ("UPPER:1", "repository name must be lowercase"),
            ("bad image", "invalid reference format"),
            ("a" * 260, "repository name must not be more than 255 characters"),
            ("127.0.0.1:1/absent:1", "connection refused"),
        ],
    )
    def test_images_that_cannot_be_pulled(
        self, make_runtime: Callable[..., DockerRuntime], image: str, cause: str
    ) -> None:
        error, _ = self.fails(make_runtime(), self.work(self.step("true", image=image)))

        assert error.startswith("error pulling image: ")
        assert cause in error

    def test_image_that_the_registry_does_not_have(
        self, make_runtime: Callable[..., DockerRuntime], registry: docker_engine.Registry
    ) -> None:
        image = f"{registry.address}/absent:1"

        error, _ = self.fails(make_runtime(), self.work(self.step("true", image=image)))

        assert error.startswith(f"error pulling image: {image}: ")
        assert "not found" in error

    def test_credentials_of_the_task_are_used(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime], private_registry: docker_engine.Registry
    ) -> None:
        image = engine.push("mine:1", private_registry)
        runtime = make_runtime()

        anonymous, _ = self.fails(runtime, self.work(self.step("true", image=image)))
        wrong, _ = self.fails(runtime, self.work(self.step("true", image=image, registry=Registry(USER, "wrong"))))
        _, right = self.run(runtime, self.work(self.step("echo in", image=image, registry=Registry(USER, PASSWORD))))

        assert "no basic auth credentials" in anonymous
        assert "unauthorized" in wrong
        assert right.text.endswith("in\n")
        assert PASSWORD not in right.text

    @pytest.mark.parametrize("form", ["auth", "plain"])
    def test_credentials_of_the_client_configuration_are_used(
        self,
        engine: DockerEngine,
        make_runtime: Callable[..., DockerRuntime],
        private_registry: docker_engine.Registry,
        tmp_path: Path,
        form: str,
    ) -> None:
        image = engine.push(f"configured-{form}:1", private_registry)
        encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        entry = {"auth": encoded} if form == "auth" else {"username": USER, "password": PASSWORD}
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"auths": {private_registry.address: entry}}))

        _, recorder = self.run(make_runtime(config=str(config)), self.work(self.step("echo in", image=image)))

        assert recorder.text.endswith("in\n")

    def test_pulled_image_can_be_verified(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime], registry: docker_engine.Registry
    ) -> None:
        image = engine.push("verified:1", registry)

        _, recorder = self.run(make_runtime(image_verify=True), self.work(self.step("echo in", image=image)))

        assert f"verifying image {image}\nimage {image} verified in " in recorder.text

    def test_images_that_nobody_used_for_long_are_removed(
        self, engine: DockerEngine, make_runtime: Callable[..., DockerRuntime], registry: docker_engine.Registry
    ) -> None:
        image = engine.push("old:1", registry)
        runtime = make_runtime(image_ttl_s=60)
        self.run(runtime, self.work(self.step("true", image=image)))
        now_us = clock.now_us()

        assert runtime.prune(now_us) == 0
        assert engine.api.images(image)
        assert runtime.prune(now_us + 61 * clock.US_PER_S) == 1
        assert not engine.api.images(image)
        assert engine.api.images(IMAGE), "another process may use it"


def test_no_engine_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    runtime = DockerRuntime(DockerOptions(), "test")

    for call in (runtime.check_health, runtime.reap):
        with pytest.raises(
            RuntimeUnavailable, match=f"^no container engine answers at unix://{tmp_path}/absent.sock: "
        ):
            call()
    runtime.close()


def test_engine_that_comes_later_is_found(
    engine: DockerEngine, make_runtime: Callable[..., DockerRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime()
    monkeypatch.setenv("DOCKER_HOST", "unix:///absent.sock")
    with pytest.raises(RuntimeUnavailable):
        runtime.check_health()
    make_runtime(host=engine.address).check_health()

    monkeypatch.setenv("DOCKER_HOST", engine.address)

    runtime.check_health()


SERVER = """
    import sys
    from arc.runtimes.base import Mount, Sidecar, Step, Stop, Work
    from arc.runtimes.docker import DockerOptions, DockerRuntime

    class Printer:
        def log(self, data): print(data.decode(), end="", flush=True)
        def progress(self, percent): pass

    step = Step(image=sys.argv[1], run="echo started; sleep 600")
    work = Work(sys.argv[2], "job", step, sidecars=(Sidecar(step),), mounts=(Mount("volume", target="/x"),))
    DockerRuntime(DockerOptions(), "test").run(work, Printer(), Stop())
"""


def test_what_a_killed_server_left_is_removed(engine: DockerEngine, make_runtime: Callable[..., DockerRuntime]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER), IMAGE, TASK],
        env={**os.environ, "DOCKER_HOST": engine.address},
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"started\n"
        server.send_signal(signal.SIGKILL)
    left = len(engine.left_behind())
    assert left == 2 + 3 + 1  # containers, volumes, network

    assert make_runtime("another").reap() == 0
    assert make_runtime().reap(keep=[TASK]) == 0
    assert make_runtime().reap() == left

    wait_until(lambda: not engine.left_behind(), "an empty engine")


def test_engine_that_dies_ends_the_task(
    engine: DockerEngine, make_runtime: Callable[..., DockerRuntime], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = docker_engine.Line(engine, tmp_path / "line.sock")
    monkeypatch.setenv("DOCKER_HOST", line.address)
    runtime, recorder = make_runtime(), Recorder()
    cutter = threading.Thread(target=line.cut)
    recorder.on_log = cutter.start
    work = RuntimeContract().work(Step(image=IMAGE, run="echo started; sleep 600"))

    with pytest.raises(TaskFailed, match=r"^error (starting|waiting for) container"):
        runtime.run(work, recorder, Stop())

    cutter.join()
    with pytest.raises(RuntimeUnavailable):
        runtime.check_health()
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    assert runtime.reap() == 2

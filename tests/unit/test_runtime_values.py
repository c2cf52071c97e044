"""Small parts of the runtimes: limits, GPUs, names, mounts, host variables, stops and deadlines."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from arc.errors import ConfigError
from arc.runtimes import hostenv
from arc.runtimes.background import Background
from arc.runtimes.base import (
    CANCELED,
    DEADLINE_EXCEEDED,
    Deadline,
    Mount,
    Registry,
    Step,
    Stop,
    TaskFailed,
    TaskStopped,
)
from arc.runtimes.containers import archive, command
from arc.runtimes.limits import device_requests, memory_bytes, nano_cpus
from arc.runtimes.mounts import BindPolicy, prepare
from arc.runtimes.names import slug
from arc.runtimes.output import Output, parse_progress
from tests.runtime_contract import Recorder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("", 0),
        (".5", 500_000_000),
        ("1", 1_000_000_000),
        ("1/2", 500_000_000),
        ("1.25", 1_250_000_000),
        ("2.", 2_000_000_000),
    ],
)
def test_cpus(text: str, nano: int) -> None:
    assert nano_cpus(text) == nano


@pytest.mark.parametrize("text", ["two", "1/0", "-1", "1e9", "1e999999999", "1 2", ".", "1/2/3", "9" * 40])
def test_cpus_that_are_no_number(text: str) -> None:
    with pytest.raises(TaskFailed, match=r"invalid CPUs value: failed to parse .* as a rational number"):
        nano_cpus(text)


@pytest.mark.parametrize("text", ["1/3", "0.0000000001"])
def test_cpus_in_too_small_parts(text: str) -> None:
    with pytest.raises(TaskFailed, match="invalid CPUs value: value is too precise"):
        nano_cpus(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("10m", 10 << 20), ("1.5g", 3 << 29), ("500KB", 500 << 10), ("1 GiB", 1 << 30), ("7", 7), ("2b", 2)],
)
def test_memory(text: str, size: int) -> None:
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["lots", "-1m", "10x", "1.2.3m", "10 mm", "m"])
def test_memory_that_is_no_size(text: str) -> None:
    with pytest.raises(TaskFailed, match=f"^invalid memory value: invalid size: '{text}'$"):
        memory_bytes(text)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("all", {"Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]]}),
        ("2", {"Count": 2}),
        ("count=3,driver=nvidia", {"Count": 3, "Driver": "nvidia"}),
        ('"device=0,1"', {"Count": 0, "DeviceIDs": ["0", "1"]}),
        ('device=GPU-1,"capabilities=compute,utility"', {"Capabilities": [["compute", "utility", "gpu"]]}),
        ('all,"options=a=1,b=2"', {"Options": {"a": "1", "b": "2"}}),
        ("driver=nvidia", {"Count": 1}),
    ],
)
def test_gpus(text: str, fields: dict[str, Any]) -> None:
    (request,) = device_requests(text)

    assert {**request, **fields} == request


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("foo=bar", "unexpected key 'foo' in 'foo=bar'"),
        ("count=1,count=2", "gpu request key 'count' can be specified only once"),
        ("many", "invalid count (many): value must be either 'all' or an integer"),
    ],
)
def test_gpus_that_make_no_sense(text: str, error: str) -> None:
    with pytest.raises(TaskFailed) as failure:
        device_requests(text)

    assert str(failure.value) == f"error setting GPUs: {error}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("My Täsk #1", "my-task-1"), ("My Web", "my-web"), ("Straße", "strasse"), ("my_db", "my_db"), ("###", "")],
)
def test_slug(name: str, expected: str) -> None:
    assert slug(name) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"run": "x"}, (["sh", "-c"], ["/tork/entrypoint"])),
        ({"run": "x", "cmd": ("ls",)}, (["sh", "-c"], ["ls"])),
        ({"run": "x", "entrypoint": ("python",)}, (["python"], ["/tork/entrypoint"])),
        ({"cmd": ("ls",), "entrypoint": ("env",)}, (["env"], ["ls"])),
        ({"cmd": ("ls",)}, (None, ["ls"])),
        ({}, (None, None)),
    ],
)
def test_what_a_container_runs(fields: dict[str, Any], expected: tuple[Any, Any]) -> None:
    assert command(Step(**fields)) == expected


def test_archive_refuses_paths_that_lead_out() -> None:
    with pytest.raises(TaskFailed, match="invalid file name"):
        archive([("../../etc/passwd", "x", 0o444)])


class TestMounts:
    def test_bind_mounts_are_off_at_first(self, tmp_path: Path) -> None:
        with pytest.raises(TaskFailed, match=r"^bind mounts are not allowed$"):
            BindPolicy().resolve(str(tmp_path))

    def test_listed_sources_are_the_only_ones(self, tmp_path: Path) -> None:
        listed = tmp_path / "data"
        policy = BindPolicy(allowed=True, sources=(str(listed),))

        assert policy.resolve(f"{tmp_path}/other/../data/") == listed
        for refused in (tmp_path, listed / "below", tmp_path / "DATA", listed / ".." / "x"):
            with pytest.raises(TaskFailed, match=r"^src bind mount is not allowed: "):
                policy.resolve(str(refused))

    def test_links_are_followed_before_the_comparison(self, tmp_path: Path) -> None:
        secret, listed = tmp_path / "secret", tmp_path / "data"
        secret.mkdir()
        listed.mkdir()
        (tmp_path / "link").symlink_to(secret)
        policy = BindPolicy(allowed=True, sources=(str(listed),))

        with pytest.raises(TaskFailed, match="not allowed"):
            policy.resolve(str(tmp_path / "link"))

    @pytest.mark.parametrize("source", ["/run/docker.sock", "/var/run/docker.sock", "/var/run", "/", "/run/../run"])
    def test_engine_socket_is_refused_unless_listed(self, source: str) -> None:
        with pytest.raises(TaskFailed, match="not allowed"):
            BindPolicy(allowed=True).resolve(source)

        BindPolicy(allowed=True, sources=(source,)).resolve(source)

    def test_own_engine_socket_is_refused_too(self, tmp_path: Path) -> None:
        policy = BindPolicy(allowed=True, sockets=(f"{tmp_path}/engine.sock",))

        with pytest.raises(TaskFailed, match="not allowed"):
            policy.resolve(str(tmp_path))

    def test_relative_source_is_refused(self) -> None:
        with pytest.raises(TaskFailed, match="not allowed: data"):
            BindPolicy(allowed=True).resolve("data")

    @pytest.mark.parametrize(
        "opts",
        [
            {"type": "none", "o": "bind", "device": "/etc"},
            {"type": "tmpfs", "o": "ro,rbind", "device": "/etc"},
            {"o": "bind", "device": "/etc"},
            {"type": "ext4", "device": "/dev/sda1"},
            {"type": "overlay", "o": "lowerdir=/etc,upperdir=/x,workdir=/y", "device": "overlay"},
            {"type": "none"},
        ],
    )
    def test_volume_options_do_not_get_around_the_list(self, opts: dict[str, str]) -> None:
        mount = Mount("volume", target="/x", opts=opts)

        for policy in (BindPolicy(), BindPolicy(allowed=True, sources=("/srv",))):
            with pytest.raises(TaskFailed, match="not allowed"):
                prepare(mount, policy, lambda _: "made")

    @pytest.mark.parametrize(
        "opts", [{}, {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, {"type": "nfs", "device": ":/export"}]
    )
    def test_volumes_of_nothing_on_this_host_are_free(self, opts: dict[str, str]) -> None:
        found = prepare(Mount("volume", target="/x", opts=opts), BindPolicy(), lambda _: "made")

        assert found["Source"] == "made"

    def test_missing_directory_is_created(self, tmp_path: Path) -> None:
        source = tmp_path / "new" / "dir"

        found = prepare(Mount("bind", str(source), "/x"), BindPolicy(allowed=True), lambda _: "")

        assert found == {"Type": "bind", "Source": str(source), "Target": "/x"}
        assert source.stat().st_mode & 0o7777 == 0o707

    @pytest.mark.parametrize(
        ("mount", "error"),
        [
            (Mount("volume"), "volume target is required"),
            (Mount("bind", source="/x"), "bind target is required"),
            (Mount("bind", target="/x"), "bind source is required"),
            (Mount("tmpfs"), "tmpfs target is required"),
            (Mount("tmpfs", source="/x", target="/x"), "tmpfs source should be empty"),
            (Mount("nfs", target="/x"), "unknown mount type: nfs"),
        ],
    )
    def test_incomplete_mounts(self, mount: Mount, error: str) -> None:
        with pytest.raises(TaskFailed, match=f"^{error}$"):
            prepare(mount, BindPolicy(allowed=True), lambda _: "")


def test_host_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE", "north")
    monkeypatch.delenv("ABSENT", raising=False)

    assert hostenv.values(hostenv.parse(["SITE", "SITE:PLACE", "ABSENT"])) == {
        "SITE": "north",
        "PLACE": "north",
        "ABSENT": "",
    }


@pytest.mark.parametrize("spec", ["A:B:C", "", ":B", "A=B"])
def test_bad_host_variables(spec: str) -> None:
    with pytest.raises(ConfigError, match=f"^invalid env var spec: {spec}$"):
        hostenv.parse([spec])


@pytest.mark.parametrize(
    ("text", "percent"), [(b"", 0.0), (b" 12.345 \n", 12.35), (b"-3", 0.0), (b"1e9", 100.0), (b"inf", 100.0)]
)
def test_progress(text: bytes, percent: float) -> None:
    assert parse_progress(text) == percent


@pytest.mark.parametrize("text", [b"soon", b"nan", b"\xff", b"1 2"])
def test_progress_that_is_no_number(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_progress(text)


@pytest.mark.parametrize(
    ("written", "tail"),
    [
        (b"", ""),
        (b"one", "one"),
        (b"".join(b"%d\n" % number for number in range(12)), "".join(f"{number}\n" for number in range(2, 12))),
        (b"".join(b"%d\n" % number for number in range(12)) + b"end", "".join(f"{n}\n" for n in range(3, 12)) + "end"),
        (b"x" * 20_000 + b"\n", "x" * 8191 + "\n"),
    ],
)
def test_tail(written: bytes, tail: str) -> None:
    output = Output(Recorder())
    for start in range(0, len(written), 7):
        output.add(written[start : start + 7])

    assert output.tail() == tail


def test_closed_output_passes_nothing_on() -> None:
    recorder = Recorder()
    output = Output(recorder)
    output.add(b"before")
    output.close()

    output.add(b"after")

    assert recorder.output == b"before"


def test_first_reason_of_a_stop_counts() -> None:
    stop = Stop()
    called: list[str] = []

    with stop.calling(lambda: called.append("inside")):
        stop.set("first")
        stop.set("second")
    with stop.calling(lambda: called.append("late")):
        pass

    assert (stop.is_set, stop.reason, called) == (True, "first", ["inside", "late"])


def test_part_of_the_work_never_ends_after_the_whole() -> None:
    whole = Deadline(Stop(), 0.0)

    with pytest.raises(TaskStopped, match=f"^{DEADLINE_EXCEEDED}$"):
        whole.within(60).check()
    assert Deadline(Stop()).within(None).remaining_s() is None
    assert 0 < (Deadline(Stop(), 60).within(5).remaining_s() or 0) <= 5


class TestBackground:
    def test_result_and_error_of_the_call(self) -> None:
        deadline = Deadline(Stop())

        assert Background("test", lambda: 42).result(deadline) == 42
        with pytest.raises(ZeroDivisionError):
            Background("test", lambda: 1 // 0).result(deadline)

    def test_stop_ends_the_wait_but_not_the_call(self) -> None:
        stop, release = Stop(), threading.Event()
        call = Background("test", release.wait)
        timer = threading.Timer(0.01, stop.set)
        timer.start()

        with pytest.raises(TaskStopped, match=f"^{CANCELED}$"):
            call.result(Deadline(stop))

        release.set()
        call.join(10)

    def test_ticks_until_the_call_has_ended(self) -> None:
        enough, ticks = threading.Event(), []

        def tick() -> None:
            ticks.append(1)
            if len(ticks) == 3:
                enough.set()

        Background("test", enough.wait).result(Deadline(Stop()), tick, 0.001)

        assert len(ticks) >= 3


def test_secrets_are_in_no_representation() -> None:
    step = Step(env={"TOKEN": "s3cret"}, files={"key": "s3cret"}, registry=Registry("me", "s3cret"))

    assert "s3cret" not in repr(step)

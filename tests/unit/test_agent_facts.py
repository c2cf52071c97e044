"""Facts of the host and custom ones: what is sent when, what bad sources do; metrics as line protocol."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from arc import clock
from arc.agent import customfacts, facts, hostfacts, metadata, plugins, sampler
from arc.agent.config import Settings
from arc.agent.customfacts import CustomFacts
from arc.agent.facts import FactLoop
from arc.agent.spool import Spool
from arc.metrics.decode.lineprotocol import decode_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MINUTE_US = 60 * clock.US_PER_S
MEMORY_FACTS = {"memory_total", "memory_used", "memory_available", "memory_used_percent"}


class Rig:
    """A fact loop whose sources are dictionaries of the test."""

    def __init__(self, tmp_path: Path) -> None:
        self.settings = Settings(server="http://s", identity="edge-1", project="plant-a", install_dir=str(tmp_path))
        self.spool = Spool(str(tmp_path / "spool.db"), "edge-1", 2**20)
        self.sources: dict[str, Any] = {"memory": {"used": 1, "total": 9}, "host": {"hostname": "h", "fqdn": None}}
        self.now_us = 0
        self.loop = self.make_loop()

    def make_loop(self) -> FactLoop:
        return FactLoop(self.spool, self.settings, {name: self._source(name) for name in ("custom", *self.sources)})

    def _source(self, name: str) -> Callable[[], dict[str, Any]]:
        def read() -> dict[str, Any]:
            found = self.sources.get(name, {})
            if isinstance(found, Exception):
                raise found
            return dict(found)

        return read

    def step(self, minutes: int = 1) -> list[dict[str, Any]]:
        """Payloads of the registrations that a pass makes."""
        before = self.spool.waiting
        self.now_us += minutes * MINUTE_US
        self.loop.step(self.now_us)
        return [json.loads(body)["payload"] for _, body in self.spool.batch(2**20, 1000)][before:]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.spool.close()


def test_first_registration_has_all_facts_with_nulls(rig: Rig) -> None:
    assert rig.step() == [{"used": 1, "total": 9, "hostname": "h", "fqdn": None}]


def test_registration_says_who_sends_it(rig: Rig) -> None:
    rig.step()

    message = json.loads(rig.spool.batch(2**20, 1)[0][1])
    assert (message["type"], message["sender"], message["project"]) == ("registration", "edge-1", "plant-a")
    assert message["version"] == 1


def test_change_sends_its_whole_group_and_no_change_nothing(rig: Rig) -> None:
    rig.step()

    assert rig.step() == []
    rig.sources["memory"] = {"used": 2, "total": 9}
    assert rig.step() == [{"used": 2, "total": 9}]
    assert rig.step() == []


def test_all_facts_go_every_half_hour(rig: Rig) -> None:
    rig.step()

    assert rig.step(29) == []
    assert rig.step(1) == [{"used": 1, "total": 9, "hostname": "h", "fqdn": None}]
    assert rig.step(29) == []


def test_fact_that_is_gone_is_sent_as_null(rig: Rig) -> None:
    rig.sources["custom"] = {"site": "north", "line": 7}
    rig.step()

    rig.sources["custom"] = {"line": 7}
    assert rig.step() == [{"line": 7, "site": None}]
    assert rig.step() == []


def test_fact_that_went_while_the_agent_was_down_is_sent_as_null(rig: Rig) -> None:
    rig.sources["custom"] = {"site": "north"}
    rig.step()

    rig.sources["custom"] = {}
    rig.loop = rig.make_loop()

    assert rig.step() == [{"site": None, "used": 1, "total": 9, "hostname": "h", "fqdn": None}]
    rig.loop = rig.make_loop()
    assert rig.step() == [{"used": 1, "total": 9, "hostname": "h", "fqdn": None}]


def test_group_that_fails_does_not_keep_the_others(rig: Rig) -> None:
    rig.sources["host"] = RuntimeError("no host")
    assert rig.step() == [{"used": 1, "total": 9}]

    rig.sources["host"] = {"hostname": "h"}
    assert rig.step() == [{"hostname": "h"}]
    rig.sources["host"] = RuntimeError("no host any more")
    assert rig.step() == []  # what was known stays


def test_custom_facts_do_not_replace_others(rig: Rig) -> None:
    rig.sources["custom"] = {"hostname": "fake", "site": "north"}

    assert rig.step() == [{"site": "north", "used": 1, "total": 9, "hostname": "h", "fqdn": None}]


def test_this_host_tells_what_is_specified() -> None:
    found = facts.merged(facts.collect(facts.groups(Settings(identity="edge-1"), plugins.load("/nowhere"))))

    assert found["os"] == "linux"
    assert found["hostname"] == socket.gethostname()
    assert found.keys() >= {"platform", "platform_family", "platform_version", "fqdn", "domain"} | MEMORY_FACTS
    assert found.keys() >= {"ipaddress", "macaddress", "default_interface", "default_gateway"}
    assert found["memory_total"] >= found["memory_available"] > 0
    assert 0 <= found["memory_used_percent"] <= 100
    assert found["disk_total"] >= found["disk_used"] > 0
    assert found["cpu_count"] >= 1
    assert found["uptime_hours"] >= 0
    assert found["agents"] == {"chef": "disabled", "execute": "enabled", "rpc": "enabled"}
    assert (found["identity"], found["arc_version"][:2]) == ("edge-1", "1.")
    assert "online" not in found
    assert not [name for name in found if name.startswith("metadata_")]


def test_memory_group_is_the_four_facts_with_percent_rounded_half_up(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "MemTotal:       1000 kB\nMemFree:        100 kB\nMemAvailable:    385 kB\n"
    monkeypatch.setattr(hostfacts, "_text", lambda *_: text)

    assert hostfacts.memory() == {
        "memory_total": 1_024_000,
        "memory_used": 629_760,
        "memory_available": 394_240,
        "memory_used_percent": 62,
    }


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ('ID=debian\nVERSION_ID="12"\n', ("debian", "debian", "12")),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', ("ubuntu", "debian", "24.04")),
        ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n', ("redhat", "rhel", "9.4")),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID=15.6\n', ("opensuse-leap", "suse", "15.6")),
        ("ID=devuan\nID_LIKE=debian\n", ("devuan", "debian", None)),
        ("", (None, None, None)),
    ],
)
def test_platform_comes_from_the_release_file(
    monkeypatch: pytest.MonkeyPatch, release: str, expected: tuple[str | None, ...]
) -> None:
    monkeypatch.setattr(hostfacts, "_text", lambda path, *_: release if "os-release" in path else "")

    found = hostfacts.host()

    assert (found["platform"], found["platform_family"], found["platform_version"]) == expected


def test_default_route_with_the_least_metric_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    table = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
        "eth0\t00000000\tFE01A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        "eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
    )
    monkeypatch.setattr(hostfacts, "_text", lambda path, *_: table if path == "/proc/net/route" else "")

    found = hostfacts.network()

    assert (found["default_interface"], found["default_gateway"]) == ("eth0", "192.168.1.254")


def test_metadata_come_from_the_service_of_the_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    document = '{"uuid": "u-1", "availability_zone": "north", "name": "vm-1", "keys": []}'
    answers = {metadata._DOCUMENT: document, metadata._PUBLIC_IP: "192.0.2.9\n"}
    monkeypatch.setattr(metadata, "_get", answers.__getitem__)

    assert metadata.metadata() == {
        "metadata_uuid": "u-1",
        "metadata_availability_zone": "north",
        "metadata_name": "vm-1",
        "metadata_public_ipv4": "192.0.2.9",
    }


def test_metadata_are_null_where_there_is_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "ADDRESS", "http://127.0.0.1:1")

    assert set(metadata.metadata().values()) == {None}


def write(path: Path, text: str, mode: int = 0o755) -> None:
    path.write_text(text)
    path.chmod(mode)


def test_custom_facts_come_from_json_files_and_executables(tmp_path: Path) -> None:
    write(tmp_path / "a.json", '{"site": "north", "line": 7}', 0o644)
    write(tmp_path / "b.sh", '#!/bin/sh\necho \'{"line": 8, "tools": ["x"]}\'\n')
    write(tmp_path / ".hidden.json", '{"hidden": true}')

    assert CustomFacts(str(tmp_path)).collect() == {"site": "north", "line": 8, "tools": ["x"]}


def test_missing_directory_means_no_custom_facts(tmp_path: Path) -> None:
    assert CustomFacts(str(tmp_path / "none")).collect() == {}


@pytest.mark.parametrize(
    ("name", "text", "mode", "complaint"),
    [
        ("x.json", "{", 0o644, "Expecting property name"),
        ("x.json", "[1]", 0o644, "is no JSON object"),
        ("x.json", '{"a": NaN}', 0o644, "not JSON compliant"),
        ("x.json", '{"a": 1e999}', 0o644, "not JSON compliant"),
        ("x.json", '{"a": ' + "[" * 20_000 + "]" * 20_000 + "}", 0o644, "is nested too deeply"),
        ("x.json", '{"online": true}', 0o644, "names online are not free"),
        ("x.json", '{"a": "' + "x" * 70_000 + '"}', 0o644, "is longer than"),
        ("x", "text", 0o644, "is neither a JSON file nor executable"),
        ("x", "#!/bin/sh\nexit 3\n", 0o755, "ended with status 3"),
        ("x", "#!/bin/sh\nsleep 60\n", 0o755, "took longer than"),
        ("x", "#!/bin/sh\nsleep 60 & exec >&-; wait\n", 0o755, "took longer than"),
        ("x", "#!/bin/sh\nyes\n", 0o755, "is longer than"),
        ("x.json", '{"a": 1}', 0o666, "everybody may write it"),
    ],
)
def test_bad_source_is_logged_and_keeps_no_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    text: str,
    mode: int,
    complaint: str,
) -> None:
    monkeypatch.setattr(customfacts, "TIME_LIMIT_S", 0.5)
    write(tmp_path / name, text, mode)
    write(tmp_path / "y.json", '{"good": 1}', 0o644)

    assert CustomFacts(str(tmp_path)).collect() == {"good": 1}

    assert complaint in caplog.text


def test_same_complaint_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "x.json", "{", 0o644)
    custom = CustomFacts(str(tmp_path))

    for _ in range(3):
        custom.collect()

    assert len(caplog.records) == 1


def test_samples_are_line_protocol_that_the_server_reads() -> None:
    taken = sampler.sampler_of("edge-1")
    assert taken is not None

    lines = list(sampler.as_lines(taken.sample(1_700_000_000_000_000)))

    decoded = decode_lines("\n".join(lines).encode(), "ns", 0)
    assert {batch.measurement for batch in decoded.batches} >= {"cpu", "mem", "load", "process"}
    assert list(decoded.rejected) == []
    assert all(",host=edge-1" in line.partition(" ")[0] for line in lines)


def test_odd_names_are_escaped_and_nulls_left_out() -> None:
    item = {
        "m": "disk",
        "t": 5,
        "h": "edge-1",
        "tags": {"path": "/a b,c=d", "device": "\\\\x\\", "fstype": ""},
        "fields": {"used": 1, "share": 0.5, "rate": None},
    }

    assert list(sampler.as_lines([item])) == [
        r"disk,device=\\x,host=edge-1,path=/a\ b\,c\=d used=1i,share=0.5 5000",
    ]
    assert list(sampler.as_lines([item | {"fields": {"rate": None}}])) == []

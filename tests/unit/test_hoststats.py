"""A sample of the host: its measurements and columns, changes per second, and what a host may keep to itself."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import psutil
import pytest

from arc import hoststats
from arc.hoststats import HostSampler

Cpu = namedtuple("Cpu", "user system idle iowait guest")
NOW = 1_700_000_000_000_000


class Host:
    """The counters psutil reads, and the monotonic clock."""

    def __init__(self, patch):
        self.at_s = 1000.0
        self.cpu = Cpu(10.0, 5.0, 100.0, 2.0, 7.0)
        self.sda = {"read_bytes": 1000, "write_bytes": 500, "read_count": 3, "write_count": 2}
        self.eth0 = dict.fromkeys(hoststats._NET.values(), 0)
        self.is_up = True
        self.mounts = [SimpleNamespace(device="/dev/sda", mountpoint="/", fstype="ext4")]
        patch.setattr(hoststats.time, "monotonic", lambda: self.at_s)
        patch.setattr(psutil, "cpu_times", lambda: self.cpu)
        patch.setattr(psutil, "disk_io_counters", lambda perdisk: {"sda": SimpleNamespace(**self.sda)})
        patch.setattr(psutil, "disk_partitions", lambda all=False: self.mounts)
        patch.setattr(psutil, "net_io_counters", lambda pernic: {"eth0": SimpleNamespace(**self.eth0)})
        patch.setattr(psutil, "net_if_stats", lambda: {"eth0": SimpleNamespace(isup=self.is_up)})


@pytest.fixture
def host(monkeypatch):
    return Host(monkeypatch)


@pytest.fixture
def sampler(host):
    return HostSampler("edge-1", "agent")


def fields_of(sampler, measurement):
    [item] = [item for item in sampler.sample(NOW) if item["m"] == measurement]
    return item["fields"]


def test_real_host_gives_every_measurement():
    items = HostSampler("edge-1", "agent").sample(NOW)

    assert {item["m"] for item in items} == {"cpu", "mem", "disk", "net", "load", "process"}
    assert {(item["h"], item["t"]) for item in items} == {("edge-1", NOW)}
    assert "/" in [item["tags"]["path"] for item in items if item["m"] == "disk"]
    assert [item["tags"] for item in items if item["m"] == "process"] == [{"program": "agent"}]
    assert all(isinstance(value, int | float | None) for item in items for value in item["fields"].values())
    assert all(item["fields"]["total_bytes"] > 0 for item in items if item["m"] in ("mem", "disk"))


def test_cpu_is_the_share_of_the_time_since_the_last_sample(host, sampler):
    host.cpu = Cpu(16.0, 7.0, 110.0, 4.0, 13.0)  # 6 + 2 busy, 10 + 2 idle; the guest's time is in user

    fields = fields_of(sampler, "cpu")

    assert fields["usage_percent"] == 40.0
    assert fields["user_percent"] == 30.0
    assert fields["iowait_percent"] == 10.0
    assert "guest_percent" not in fields


def test_cpu_is_unknown_when_no_time_passed(sampler):
    assert fields_of(sampler, "cpu")["usage_percent"] is None


def test_counter_that_goes_back_a_little_is_no_negative_share(host, sampler):
    host.cpu = Cpu(20.0, 5.0, 110.0, 1.9, 7.0)

    assert fields_of(sampler, "cpu")["iowait_percent"] == 0.0


def test_counters_come_with_their_change_per_second(host, sampler):
    host.at_s += 4.0
    host.sda["read_bytes"] += 1000
    host.eth0["bytes_recv"] += 10

    disk, net = fields_of(sampler, "disk"), fields_of(sampler, "net")

    assert (disk["read_bytes"], disk["read_bytes_per_s"]) == (2000, 250.0)
    assert (disk["write_bytes"], disk["write_bytes_per_s"]) == (500, 0.0)
    assert net["recv_bytes"] == 10


def test_counter_that_was_set_back_has_no_change(host, sampler):
    host.at_s += 4.0
    host.sda["read_bytes"] = 7

    fields = fields_of(sampler, "disk")

    assert (fields["read_bytes"], fields["read_bytes_per_s"]) == (7, None)


def test_file_system_without_counters_tells_its_space(host, sampler):
    host.mounts = [SimpleNamespace(device="overlay", mountpoint="/", fstype="overlay")]

    fields = fields_of(sampler, "disk")

    assert fields["total_bytes"] > 0
    assert fields["read_bytes"] is None


def test_device_counts_once_however_often_it_is_mounted(host, sampler):
    host.mounts.append(SimpleNamespace(device="/dev/sda", mountpoint="/etc/hosts", fstype="ext4"))

    assert fields_of(sampler, "disk")["total_bytes"] > 0  # one row only


def test_root_is_told_also_when_it_lies_on_no_device(monkeypatch, host, sampler):
    root = SimpleNamespace(device="overlay", mountpoint="/", fstype="overlay")
    monkeypatch.setattr(psutil, "disk_partitions", lambda all=False: [root] if all else [])

    assert fields_of(sampler, "disk")["total_bytes"] > 0


def test_unreadable_file_system_is_left_out(host, sampler):
    host.mounts.append(SimpleNamespace(device="/dev/sdb", mountpoint="/no/such/path", fstype="ext4"))

    assert fields_of(sampler, "disk")["total_bytes"] > 0  # one row only


def test_interface_that_is_down_is_left_out(host, sampler):
    host.is_up = False

    assert "net" not in {item["m"] for item in sampler.sample(NOW)}


def test_what_the_host_does_not_tell_costs_only_that_measurement(monkeypatch, caplog, host, sampler):
    def refuse(perdisk):
        raise NotImplementedError("no /proc/diskstats")

    monkeypatch.setattr(psutil, "disk_io_counters", refuse)

    sampler.sample(NOW)

    assert {item["m"] for item in sampler.sample(NOW)} == {"cpu", "mem", "net", "load", "process"}
    assert caplog.messages == ["this host tells no disk figures: no /proc/diskstats"]

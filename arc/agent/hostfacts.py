"""Facts of this host, by group. On Linux from /proc, /sys and /etc; elsewhere what Python and psutil tell.

Source: the remote agents specification, section 7.6. The groups cpu, disk and uptime are ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from arc import clock

if TYPE_CHECKING:
    Facts = dict[str, Any]

IS_LINUX = sys.platform.startswith("linux")
COMMAND_S = 2.0
_FAMILIES = {
    "debian": "debian", "ubuntu": "debian", "raspbian": "debian", "linuxmint": "debian",
    "rhel": "rhel", "redhat": "rhel", "centos": "rhel", "rocky": "rhel", "almalinux": "rhel", "amzn": "rhel",
    "ol": "rhel",
    "fedora": "fedora", "suse": "suse", "sles": "suse", "opensuse": "suse", "arch": "arch", "alpine": "alpine",
    "gentoo": "gentoo",
}  # fmt: skip
_SIOCGIFADDR = 0x8915


def host() -> Facts:
    name = socket.gethostname()
    fqdn = _fqdn()
    facts: Facts = {
        "hostname": name or None,
        "fqdn": fqdn,
        "domain": fqdn.partition(".")[2] if fqdn else None,
        **(_linux() if IS_LINUX else _other_platform()),
    }
    if (init := _init_package()) is not None:
        facts["init_package"] = init
    return facts


def cpu() -> Facts:
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _text("/proc/cpuinfo", 65_536), re.MULTILINE)
    return {
        "cpu_count": os.cpu_count(),
        "cpu_model": model[1].strip() if model else None,
        "cpu_architecture": os.uname().machine,
        "kernel_version": os.uname().release,
    }


def memory() -> Facts:
    """Bytes, as psutil counts them."""
    if not IS_LINUX:
        return _memory_by_psutil()
    kib = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", _text("/proc/meminfo"), re.MULTILINE)}
    total, free = kib["MemTotal"], kib["MemFree"]
    available = kib.get("MemAvailable", free)
    return _memory(total * 1024, (total - available) * 1024, available * 1024)


def disk() -> Facts:
    """Of the file system at /, in bytes; available to programs that are not root's."""
    found = os.statvfs("/")
    total, available = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    percent = _percent(used, used + available)
    return {"disk_total": total, "disk_used": used, "disk_available": available, "disk_used_percent": percent}


def uptime() -> Facts:
    """Whole hours: it would be news each minute otherwise."""
    if IS_LINUX:
        up_s = float(_text("/proc/uptime").split()[0])
    else:
        import psutil

        up_s = time.time() - psutil.boot_time()
    booted_us = clock.now_us() - round(up_s * clock.US_PER_S)
    minute_us = 60 * clock.US_PER_S  # the two clocks drift a little against each other
    return {
        "uptime_hours": int(up_s // 3600),
        "booted_at": clock.rfc3339((booted_us + minute_us // 2) // minute_us * minute_us),
    }


def network() -> Facts:
    """Of the default route; without one, of some interface that has an address."""
    interface, gateway = _default_route()
    used = interface or next((name for name in _interfaces() if _address(name)), None)
    return {
        "ipaddress": _address(used) if used else None,
        "macaddress": _mac(used) if used else None,
        "default_interface": interface,
        "default_gateway": gateway,
    }


def _linux() -> Facts:
    release = dict(re.findall(r"^(\w+)=(.*)$", _text("/etc/os-release") or _text("/usr/lib/os-release"), re.MULTILINE))
    values = {name: value.strip().strip("\"'") for name, value in release.items()}
    platform = {"rhel": "redhat"}.get(values.get("ID", ""), values.get("ID")) or None
    kin = [platform or "", *values.get("ID_LIKE", "").split()]
    family = next((_FAMILIES[each.partition("-")[0]] for each in kin if each.partition("-")[0] in _FAMILIES), platform)
    return {
        "os": "linux",
        "platform": platform,
        "platform_family": family,
        "platform_version": values.get("VERSION_ID") or None,
    }


def _other_platform() -> Facts:
    import platform

    version = platform.mac_ver()[0] if sys.platform == "darwin" else platform.release()
    return {"os": sys.platform, "platform": sys.platform, "platform_family": "", "platform_version": version or None}


def _fqdn() -> str | None:
    """As `hostname -f` finds it, which may ask a name server."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["hostname", "-f"], capture_output=True, timeout=COMMAND_S, check=True)
        name = done.stdout.decode("utf-8", "replace").strip()
        return name if "." in name.strip(".") else None
    return None


def _init_package() -> str | None:
    """None where there is none of the three."""
    if _text("/proc/1/comm").strip() == "systemd" or "systemd" in os.path.realpath("/sbin/init"):
        return "systemd"
    if os.path.exists("/sbin/initctl") and os.path.isdir("/etc/init"):
        return "upstart"
    return "sysv" if os.path.exists("/etc/inittab") else None


def _memory(total: int, used: int, available: int) -> Facts:
    return {
        "memory_total": total,
        "memory_used": used,
        "memory_available": available,
        "memory_used_percent": _percent(total - available, total),
    }


def _memory_by_psutil() -> Facts:
    import psutil

    found = psutil.virtual_memory()
    return _memory(found.total, found.used, found.available)


def _default_route() -> tuple[str | None, str | None]:
    """Interface and gateway with the least metric."""
    routes = []
    for line in _text("/proc/net/route").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000" and int(fields[3], 16) & 1:
            gateway = socket.inet_ntoa(bytes.fromhex(fields[2])[::-1]) if int(fields[2], 16) else None
            routes.append((int(fields[6]), fields[0], gateway))
    return min(routes)[1:] if routes else (None, None)


def _interfaces() -> list[str]:
    """Ethernet and its like."""
    with contextlib.suppress(OSError):
        names = sorted(os.listdir("/sys/class/net"))
        return [name for name in names if _text(f"/sys/class/net/{name}/type").strip() == "1"]
    return []


def _address(interface: str) -> str | None:
    """Its first IPv4 address."""
    import fcntl

    request = interface.encode()[:15].ljust(256, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)[20:24])
    return None


def _mac(interface: str) -> str | None:
    return _text(f"/sys/class/net/{interface}/address").strip() or None


def _percent(part: int, total: int) -> int:
    """Rounded half up."""
    return (200 * part + total) // (2 * total) if total else 0


def _text(path: str, limit: int = 65_536) -> str:
    """Empty when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""

"""Options of the agent: which source wins, how names are read, what is fatal; what enrolment writes."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from arc.agent import config, enrol, service
from arc.agent.config import Settings
from arc.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "arc.cfg"


def load(file: Path, environ: dict[str, str] | None = None, **flags: object) -> Settings:
    return config.load({"config_file": str(file), **flags}, environ or {})


def test_option_over_environment_over_file_over_default(file: Path) -> None:
    file.write_text("server: http://file\nproject: file\norganization: file\n")
    environ = {"ARC_AGENT_SERVER": "http://environment", "ARC_AGENT_PROJECT": "environment"}

    settings = load(file, environ, server="http://flag", token=None)

    assert settings.server == "http://flag"
    assert settings.project == "environment"
    assert settings.organization == "file"
    assert settings.poll_time == 30.0
    assert settings.token == ""


@pytest.mark.parametrize(
    "line",
    [
        "spool-size: 7",
        "spool_size = 7",
        "SPOOL SIZE: 7",
        "ARC_AGENT_SPOOL_SIZE=7",
        "arc_spool-size=7",
        "  Spool-Size  :  7  # megabytes",
        "spool-size: '7'",
        'spool-size: "7" # comment',
    ],
)
def test_names_in_the_file_are_normalised(file: Path, line: str) -> None:
    file.write_text(f"# a comment\n\n{line}\n")

    assert load(file).spool_size == 7


def test_empty_environment_variable_counts_as_none(file: Path) -> None:
    file.write_text("project: file\n")

    assert load(file, {"ARC_AGENT_PROJECT": ""}).project == "file"


def test_values_may_have_colons_and_signs(file: Path) -> None:
    file.write_text("server: https://arc.example:8443/x\ntoken: 'a#b: c'\n")

    settings = load(file)

    assert settings.server == "https://arc.example:8443/x"
    assert settings.token == "a#b: c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no-such-option: 1", "unknown option 'no-such-option'"),
        ("nonsense", "is no `key: value`"),
        ("spool-size: many", "spool_size: 'many' does not do"),
        ("spool-size: 0", "must be at least 1"),
        ("poll-time: nan", "must be at least"),
        ("metadata: perhaps", "metadata: 'perhaps'"),
        ("server: ftp://x", "is no address"),
        ("identity: a b", "identity must have"),
        ("log-level: loud", "log_level must be one of"),
    ],
)
def test_what_is_wrong_is_fatal_and_says_so(file: Path, text: str, message: str) -> None:
    file.write_text(text)

    with pytest.raises(ConfigError, match=message) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_nothing_to_listen_for_is_fatal(file: Path) -> None:
    file.write_text("listen: 127.0.0.1:8001\nactions: no\n")

    with pytest.raises(ConfigError, match="listen is for"):
        load(file)


def test_flag_that_is_wrong_is_not_blamed_on_the_file(file: Path) -> None:
    file.write_text("spool-size: 5\n")

    with pytest.raises(ConfigError, match=r"^spool_size: 'many'"):
        load(file, spool_size="many")


def test_named_file_that_cannot_be_read_is_fatal(tmp_path: Path) -> None:
    for given in ({"config_file": str(tmp_path / "none")}, {}):
        environ = {} if given else {"ARC_AGENT_CONFIG_FILE": str(tmp_path / "none")}
        with pytest.raises(ConfigError, match=r"invalid config file: .*No such file"):
            config.load(given, environ)


def test_default_file_may_be_absent_and_is_read_when_there(tmp_path: Path) -> None:
    flags = {"install_dir": str(tmp_path)}
    assert config.load(flags, {}).project == ""

    (tmp_path / "arc.cfg").write_text("project: plant-a\n")

    assert config.load(flags, {}).project == "plant-a"


def test_file_that_is_no_text_is_fatal_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "arc.cfg").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match=r"arc\.cfg"):
        config.load({"install_dir": str(tmp_path)}, {})


def test_state_lies_beside_the_named_file(file: Path) -> None:
    file.write_text("")

    settings = load(file)

    assert settings.state_dir == str(file.parent / "state")
    assert settings.plugin_dir == str(file.parent / "plugins")
    assert settings.identity == socket.gethostname()


def test_text_of_settings_hides_the_token(file: Path) -> None:
    file.write_text("token: secret\n")

    assert "secret" not in repr(load(file))


def test_written_file_is_private_and_reads_back(tmp_path: Path) -> None:
    wanted = Settings(
        server="http://s", token="a #b", identity="edge-1", metadata=True, poll_time=5.0, install_dir=str(tmp_path)
    )
    (tmp_path / "arc.cfg.partial").touch(0o666)

    path = enrol.write_file(wanted)

    assert os.stat(path).st_mode & 0o777 == 0o600
    assert vars(config.load({"config_file": path}, {})) == vars(wanted)


def test_unit_starts_the_agent_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "UNIT_PATH", str(tmp_path / "arc-agent.service"))
    monkeypatch.setattr(service, "has_systemd", lambda: False)
    monkeypatch.setattr("sys.argv", ["/opt/arc 100%/arc-agent.pyz"])

    path = service.install("/opt/arc/arc.cfg", 300.0)

    with open(path) as file:
        unit = file.read()
    assert '"/opt/arc 100%%/arc-agent.pyz" agent --config-file /opt/arc/arc.cfg\n' in unit
    assert "Restart=on-failure" in unit
    assert "RestartForceExitStatus=75" in unit
    assert "TimeoutStopSec=330" in unit


@pytest.mark.parametrize(
    ("started_by", "parent", "unit", "main_pid", "how"),
    [
        (1, 1, "arc-agent.service", "own", "exits"),
        (1, 1, "other.service", "own", "exec"),  # nobody knows what another unit does with exit status 75
        (1, 1, "", "", "exec"),  # a child of a container's first process
        (0, 0, "", "", "exec"),  # the first process of a container
        (70, 70, "", "", "exec"),  # a terminal or a supervisor
        (70, 70, "arc-agent.service", "60", "exec"),  # what the agent of the unit has started
        (70, 1, "other.service", "own", "exec"),  # of a unit whose command leaves it in the background
        (70, 1, "other.service", None, "exec"),
        (70, 1, "cron.service", "60", "spawns"),
        (70, 1, "", "", "spawns"),
        (70, 50, "", "", "spawns"),  # who takes in orphans need not be the first process
    ],
)
def test_restart_depends_on_who_knows_the_process(
    monkeypatch: pytest.MonkeyPatch, started_by: int, parent: int, unit: str, main_pid: str | None, how: str
) -> None:
    done: list[str] = []
    monkeypatch.setattr("os.getppid", lambda: parent)
    monkeypatch.setattr("os.execv", lambda *_: done.append("exec"))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: done.append("spawns"))
    monkeypatch.setattr("arc.actions.services.own_unit", lambda: unit)
    monkeypatch.setattr(service, "_main_pid", lambda unit: str(os.getpid()) if main_pid == "own" else main_pid)

    status = service.begin_anew(started_by)

    assert (status, [*done, "exits"][0]) == (75 if how == "exits" else 0, how)

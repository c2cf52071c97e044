"""Commands, called as functions; the server itself is started by the integration tests."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import arc
from arc.cli import main

ROOT = Path(__file__).parents[2]
SECRET = "s3cret" * 8


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def secret(capsys: pytest.CaptureFixture[str]) -> str:
    """The secret of the token `probe`."""
    assert main(["token", "create", "probe", "--permissions", "write", "--expires-in", "24h"]) == 0
    return capsys.readouterr().out.strip()


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, object]:
    assert main(["token", "show", *args]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("command", [[], ["server"], ["config"], ["token"], *(["token", name] for name in (
    "create", "list", "show", "rotate", "revoke", "delete", "verify")),
    ["job"], *(["job", name] for name in (
    "submit", "list", "show", "log", "cancel", "restart", "delete", "queues", "nodes")),
    *([name] for name in (
    "audit", "backup", "restore", "check", "import", "write", "query", "databases"))])  # fmt: skip
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0

    assert "Usage: arc" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0

    assert capsys.readouterr().out == f"{arc.__version__}\n"
    assert f"\nversion = {arc.__version__}\n" in (ROOT / "setup.cfg").read_text()  # where attr: would find arc.py


def test_config_shows_values_and_sources(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ARC_SERVER_PORT", "9000")
    monkeypatch.setenv("ARC_AUTH_BOOTSTRAP_TOKEN", SECRET)

    assert main(["config", "--json", "--set", "wal.sync=off"]) == 0

    out = capsys.readouterr().out
    found = {row["option"]: (row["value"], row["source"]) for row in json.loads(out)}
    assert found["server.port"] == (9000, "environment ARC_SERVER_PORT")
    assert found["wal.sync"] == ("off", "flag")
    assert found["server.threads"] == (8, "default")
    assert SECRET not in out


def test_configuration_errors_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--set", "wal.snyc=off"]) == 2

    assert capsys.readouterr().err == "arc: unknown option wal.snyc; the nearest is wal.sync\n"
    assert main(["--set", "nonsense"]) == 2
    assert main(["--port", "many"]) == 2
    assert main(["token", "nonsense"]) == 2


def test_created_token_is_verified_and_listed(
    secret: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{secret}\n"))

    assert main(["token", "verify"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "probe"
    assert main(["token", "list"]) == 0
    line = capsys.readouterr().out
    assert "probe" in line
    assert "active until" in line
    assert secret not in line


def test_wrong_secret_is_refused(
    secret: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("wrong\n"))

    assert main(["token", "verify"]) == 1

    assert capsys.readouterr().err == "arc: Invalid or missing API token\n"


def test_token_is_named_by_name_or_id(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "probe") == shown(capsys, "1")
    assert main(["token", "show", "nobody"]) == 1


def test_rotate_prints_another_secret(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "rotate", "probe"]) == 0

    rotated = capsys.readouterr().out.strip()
    assert len(rotated) == len(secret)
    assert rotated != secret


def test_revoke_and_delete(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "revoke", "probe"]) == 0
    assert shown(capsys, "probe")["enabled"] is False

    assert main(["token", "delete", "probe"]) == 0
    assert main(["token", "show", "probe"]) == 1


def test_list_makes_no_data_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "list", "--data", "typo"]) == 1

    assert "no tokens in typo" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_bad_expiry_is_a_usage_error(tmp_path: Path) -> None:
    assert main(["token", "create", "x", "--expires-in", "tomorrow"]) == 2

    assert not (tmp_path / "data").exists()


def test_wrong_values_of_token_options_are_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "create", "x", "--expires-in", "0d"]) == 2
    assert "must live for some time" in capsys.readouterr().err
    assert main(["token", "create", "x", "--permissions", "read,fly"]) == 2
    assert "unknown permission 'fly'" in capsys.readouterr().err


def test_rotate_of_a_revoked_token_says_that_it_stays_revoked(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["token", "revoke", "probe"])
    capsys.readouterr()

    assert main(["token", "rotate", "probe"]) == 0

    assert "still revoked" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["revoke", "delete"])
def test_the_end_of_the_last_admin_token_is_no_secret(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        main(["token", "create", name, "--permissions", "admin"])
    capsys.readouterr()

    assert main(["token", command, "first"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(["token", command, "second"]) == 0
    assert "no admin token is left" in capsys.readouterr().err


def test_options_before_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "9000", "query", "SELECT 1"]) == 2

    assert "Options come behind the command" in capsys.readouterr().err


def test_a_backup_into_the_data_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()

    assert main(["backup", "data/backup.tar"]) == 1

    assert "inside of the data directory" in capsys.readouterr().err


def test_token_commands_load_no_heavy_module() -> None:
    """Checked in a process of its own: this one has loaded everything."""
    code = "import sys, arc.cli; arc.cli.main(['token', 'create', 'x']); print(*sys.modules)"
    env = {"PYTHONPATH": str(ROOT)}

    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)

    assert not {"flask", "duckdb", "pyarrow"} & set(done.stdout.split())

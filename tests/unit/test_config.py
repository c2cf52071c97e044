"""Configuration: layers, names, kinds, and the example file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from arc import config
from arc.config import OPTIONS, Config, Size, load
from arc.errors import ConfigError

SECRET = "s3cret" * 8
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No arc.conf of the developer's gets in."""
    monkeypatch.chdir(tmp_path)


def from_file(text: str) -> Config:
    Path("arc.conf").write_text(text)
    return load(None, {}, {})


def test_example_file_is_what_the_table_produces() -> None:
    assert (ROOT / "arc.conf.example").read_text() == config.example(), "write config.example() to arc.conf.example"


def test_example_file_without_comment_marks_holds_the_defaults() -> None:
    loaded = from_file(re.sub(r"(?m)^#(?! )", "", config.example()))

    assert {s.option.key: s.value for s in loaded} == {option.key: option.default for option in OPTIONS}
    assert {s.source for s in loaded} == {"file arc.conf"}


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_default_obeys_its_own_rule(option: config.Option) -> None:
    assert option.parse(option.default) == option.default
    assert option.section in config.SECTIONS
    assert option.help


def test_later_layers_win() -> None:
    Path("arc.conf").write_text("[server]\nport = 1\nthreads = 2\nhost = 'a'\n")

    loaded = load(None, {"ARC_SERVER_PORT": "3", "ARC_SERVER_THREADS": "4"}, {"server.port": "5"})

    assert [loaded.get("server", name) for name in ("port", "threads", "host")] == [5, 4, "a"]
    sources = [loaded.source("server", name) for name in ("port", "threads", "host", "shutdown_timeout_s")]
    assert sources == ["flag", "environment ARC_SERVER_THREADS", "file arc.conf", "default"]


def test_file_is_searched_by_flag_then_variable_then_here(tmp_path: Path) -> None:
    for name in ("flag.conf", "variable.conf", "arc.conf"):
        Path(name).write_text(f"[storage]\ndatabase = '{name}'\n")
    environ = {"ARC_CONF": str(tmp_path / "variable.conf")}

    found = [load("flag.conf", environ, {}), load(None, environ, {}), load(None, {}, {})]

    assert [each.get("storage", "database") for each in found] == ["flag.conf", "variable.conf", "arc.conf"]


def test_named_file_must_exist() -> None:
    with pytest.raises(ConfigError, match=r"no configuration file nowhere\.conf"):
        load("nowhere.conf", {}, {})


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"arc\.conf: unknown option wal\.snyc; the nearest is wal\.sync$"):
        from_file("[wal]\nsnyc = 'off'\n")
    Path("arc.conf").unlink()
    with pytest.raises(ConfigError, match=r"unknown environment variable ARC_WAL_SNYC; the nearest is ARC_WAL_SYNC$"):
        load(None, {"ARC_WAL_SNYC": "off"}, {})
    with pytest.raises(ConfigError, match=r"unknown option sever\.port; the nearest is server\.port$"):
        load(None, {}, {"sever.port": "1"})


def test_unknown_section_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown option serving\.port"):
        from_file("[serving]\nport = 1\n")


def test_variables_of_other_programs_are_left_alone() -> None:
    loaded = load(None, {"ARC_TOKEN": "x", "ARCHIVE": "y", "PORT": "1", "HOST": "z"}, {})

    assert {s.source for s in loaded} == {"default"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("server.port = '8000'", "must be a whole number"),
        ("server.port = true", "must be a whole number"),
        ("server.port = 65536", "must be at most 65535"),
        ("server.threads = 0", "must be at least 1"),
        ("server.host = 1", "must be a text"),
        ("auth.enabled = 1", "must be true or false"),
        ("query.timeout_s = 'long'", "must be a number"),
        ("wal.sync = 'never'", "must be one of always, interval, off"),
        ("wal.segment_size = '64 quires'", "must be a size such as 64MB or 1GB"),
        ("wal.segment_size = -1", "must be a size such as 64MB or 1GB"),
        ("server.cors_origins = [1]", "must be a list of texts"),
        ("server = 1", "unknown option server"),
        ("retention.schedule = 'at noon'", "arc.conf: retention.schedule = 'at noon': must be a cron expression"),
        ("compaction.hourly_schedule = ''", "must be a cron expression"),
        ("compaction.daily_schedule = '0 0 30 2 *'", "that comes due"),
        ("server.port = ", "arc.conf"),
    ],
)
def test_values_that_do_not_fit_are_refused(line: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        from_file(line)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("64MB", 64 << 20), ("1 GB", 1 << 30), ("2k", 2048), ("3tb", 3 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert Size.parse(text) == size
    assert Size.parse(str(Size(size))) == size


@pytest.mark.parametrize(
    ("line", "section", "name", "value"),
    [
        ("server.workers = 3", "server", "threads", 3),
        ("ingestion.buffer_size = 7", "ingest", "buffer_rows", 7),
        ("ingestion.buffer_age_seconds = 7", "ingest", "buffer_age_s", 7.0),
        ("wal.sync_mode = 'fdatasync'", "wal", "sync", "always"),
        ("wal.sync_mode = 'async'", "wal", "sync", "off"),
        ("wal.max_size_mb = 100", "wal", "segment_size", 100 << 20),
        ("duckdb.memory_limit = '8GB'", "query", "memory_limit", 8 << 30),
        ("storage.local.database = 'systems'", "storage", "database", "systems"),
        ("cors.origins = 'http://a, http://b'", "server", "cors_origins", ["http://a", "http://b"]),
        ("logging.level = 'warn'", "log", "level", "WARNING"),
        ("logging.format = 'structured'", "log", "format", "json"),
    ],
)
def test_older_names_of_a_file(line: str, section: str, name: str, value: object) -> None:
    assert from_file(line).get(section, name) == value


@pytest.mark.parametrize(
    ("variable", "text", "section", "name", "value"),
    [
        ("ARC_PORT", "9000", "server", "port", 9000),
        ("ARC_SERVER_WORKERS", "3", "server", "threads", 3),
        ("WAL_SYNC_MODE", "fsync", "wal", "sync", "always"),
        ("MAX_REQUEST_SIZE_MB", "5", "server", "max_body_size", 5 << 20),
        ("AUTH_ENABLED", "false", "auth", "enabled", False),
        ("AUTH_ALLOWLIST", "/a,/b/*", "auth", "allowlist", ["/a", "/b/*"]),
        ("ARC_INGEST_BUFFER_AGE_S", "0.5", "ingest", "buffer_age_s", 0.5),
    ],
)
def test_names_of_the_environment(variable: str, text: str, section: str, name: str, value: object) -> None:
    assert load(None, {variable: text}, {}).get(section, name) == value


def test_two_names_of_one_option_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"server\.threads and server\.workers are the same option"):
        from_file("[server]\nthreads = 1\nworkers = 2\n")


def test_no_name_stands_for_two_options() -> None:
    names = [name for option in OPTIONS for name in (*option.file_keys(), *option.variables())]

    assert len(names) == len(set(names))


def test_secrets_are_not_shown() -> None:
    loaded = load(None, {}, {"auth.bootstrap_token": SECRET})

    assert loaded.get("auth", "bootstrap_token") == SECRET
    assert SECRET not in repr(loaded)
    assert all(SECRET not in s.option.show(s.value) for s in loaded)


def test_refused_secret_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="must be at least 32 characters") as refusal:
        load(None, {"ARC_AUTH_BOOTSTRAP_TOKEN": "too-short"}, {})

    assert "too-short" not in str(refusal.value)


def test_reading_again_keeps_the_layers_and_changes_nothing_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "arc.conf"
    path.write_text("[actions]\nkeep = 5\nqueue_max = 5\n")
    config = load(str(path), {"ARC_ACTIONS_QUEUE_MAX": "6"}, {"actions.history_max": "70"})
    path.write_text("[actions]\nkeep = 8\nqueue_max = 8\nhistory_max = 80\n[server]\nport = 80\n")

    found = config.read_again()

    section = found.section("actions")
    assert (section["keep"], section["queue_max"], section["history_max"]) == (8, 6, 70)
    assert config.get("actions", "keep") == 5
    config.take(found, [option for option in OPTIONS if option.section == "actions"])
    assert (config.get("actions", "keep"), config.section("actions")["keep"], config.get("server", "port")) == (
        8,
        8,
        8000,
    )
    assert "keep = 8" in config.as_toml(with_secrets=False)
    path.write_text("[actions]\nkeep = 'x'\n")
    with pytest.raises(ConfigError, match=r"arc\.conf: actions\.keep = 'x'"):
        config.read_again()

"""Configuration: one table of options, read from a TOML file, the environment and flags.

default <- file (--config, ARC_CONF, ./arc.conf, /etc/arc/arc.conf) <- environment ARC_SECTION_KEY <- flags
A later layer wins. An unknown name or a value that does not fit stops the start with ConfigError.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cronsim import CronSim, CronSimError

from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SEARCH_PATHS = (Path("arc.conf"), Path("/etc/arc/arc.conf"))
PATH_VARIABLES = ("ARC_CONF", "ARC_CONFIG_FILE")
MASK = "********"

_SIZE = re.compile(r"(\d+)\s*([KMGT]?)B?", re.IGNORECASE)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNITS = re.compile(r"(?!-)[A-Za-z0-9:_.@\\*?\[\]!-]+")  # of systemd, with the signs of a shell's patterns
_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Size(int):
    """Bytes; written `64MB` (1 KB is 1024 bytes) or as a plain number."""

    @classmethod
    def parse(cls, text: str) -> Size:
        """Raises ValueError."""
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise ValueError("must be a size such as 64MB or 1GB")
        return cls(int(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))

    def __str__(self) -> str:
        number, power = int(self), 0
        while number and number % 1024 == 0 and power < 4:
            number, power = number // 1024, power + 1
        return f"{number}{('B', 'KB', 'MB', 'GB', 'TB')[power]}"


@dataclass(frozen=True)
class Option:
    """One row of the table.

    type: str, int, float, bool, Size, or list for a list of strings.
    aliases: older names: `section.key` of a file (and ARC_SECTION_KEY), or a whole environment variable in
        capitals. The value of a name that ends in `_mb` counts megabytes.
    choices: the values allowed; synonyms: other spellings of them.
    minimum, maximum: limits of a number; minimum of a str is its length unless it is empty.
    check: raises ValueError for a value that keeps to all this and still does not do.
    """

    section: str
    name: str
    type: type[Any]
    default: Any
    help: str
    unit: str = ""
    secret: bool = False
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=dict)
    minimum: float | None = None
    maximum: float | None = None
    check: Callable[[Any], None] | None = None

    def __str__(self) -> str:
        return f"[{self.section}] {self.name}"

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    def file_keys(self) -> list[str]:
        return [self.key, *(alias for alias in self.aliases if "." in alias)]

    def variables(self) -> list[str]:
        named = [*map(_variable, self.file_keys()), *(alias for alias in self.aliases if "." not in alias)]
        return list(dict.fromkeys(named))  # a_b.c and a.b_c are one variable

    def show(self, value: Any) -> str:
        """The value as TOML, a secret masked."""
        if self.secret and value:
            return f'"{MASK}"'
        return json.dumps(str(value) if self.type is Size else value, ensure_ascii=False)

    def parse(self, raw: Any) -> Any:
        """The typed value of what a TOML file holds. Raises ValueError saying what it must be."""
        value = _typed(self.type, raw)
        if self.choices:
            return self._choice(value)
        self._check_range(value)
        if self.check:
            self.check(value)
        return value

    def parse_text(self, text: str) -> Any:
        """The typed value of a text from the environment or a flag. Raises ValueError."""
        return self.parse(_from_text(self.type, text))

    def _choice(self, value: str) -> str:
        known = {choice.lower(): choice for choice in self.choices} | dict(self.synonyms)
        if value.lower() not in known:
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        return known[value.lower()]

    def _check_range(self, value: Any) -> None:
        is_text = isinstance(value, str)
        amount = len(value) if is_text else value
        if not is_text and isinstance(value, float) and not math.isfinite(value):
            raise ValueError("must be a number, and not a boundless one")
        if self.minimum is not None and amount < self.minimum and not (is_text and not value):
            raise ValueError(f"must be at least {self.minimum}{' characters' if is_text else ''}")
        if self.maximum is not None and amount > self.maximum:
            raise ValueError(f"must be at most {self.maximum}")


def _check_cron(expression: str) -> None:
    try:
        next(CronSim(expression, datetime.now(UTC)))
    except (CronSimError, StopIteration):
        raise ValueError("must be a cron expression such as '5 * * * *' that comes due") from None


def _check_header_names(names: list[str]) -> None:
    if wrong := [name for name in names if not _HEADER.fullmatch(name)]:
        raise ValueError(f"{wrong[0]!r} is no name of a header")


def _check_units(patterns: list[str]) -> None:
    if wrong := [pattern for pattern in patterns if not _UNITS.fullmatch(pattern)]:
        raise ValueError(f"{wrong[0]!r} is no unit such as nginx.service or app-*, in which * and ? stand for anything")


def _check_command(argv: list[str]) -> None:
    if argv and not argv[0]:
        raise ValueError("must begin with the name of a program")


def _check_url(url: str) -> None:
    if url and not url.startswith(("http://", "https://")):
        raise ValueError("must be an address such as https://arc.example.com")


SECTIONS = {
    "server": "HTTP server",
    "storage": "Where everything is kept",
    "database": "Metadata: tokens and everything that is not a metric",
    "auth": "Who may call",
    "audit": "Who has changed access, commanded machines or destroyed data",
    "wal": "Write-ahead log: what makes an acknowledged write survive a crash",
    "ingest": "From write to Parquet",
    "query": "SQL queries",
    "query_cache": "Answers to repeated queries",
    "compaction": "Merging small Parquet files into larger ones",
    "retention": "Removing rows by age, as policies say",
    "continuous_queries": "Queries that run at intervals and store their results",
    "delete": "Removing rows by predicate",
    "collect": "Metrics of the server's own host",
    "jobs": "Workflows: what is kept, and for how long",
    "fleet": "Machines with an agent",
    "worker": "Tasks that this host runs",
    "shell": "Tasks that are processes of this host",
    "docker": "Tasks that are containers",
    "mounts": "What containers may see of this host",
    "node": "How this server introduces itself as a node",
    "actions": "Durable operations on this node",
    "log": "Log of the server",
}

OPTIONS = (
    Option("server", "host", str, "0.0.0.0", "address to listen on; 127.0.0.1 serves this host only",  # noqa: S104
           aliases=("ARC_HOST",)),
    Option("server", "port", int, 8000, "TCP port; 0 takes a free one", minimum=0, maximum=65535,
           aliases=("ARC_PORT",)),
    Option("server", "threads", int, 8, "requests worked on at a time", minimum=1, maximum=1024,
           aliases=("server.workers", "ARC_WORKERS")),
    Option("server", "shutdown_timeout_s", int, 30, "how long requests and steps of actions may take to end at a stop",
           "seconds", aliases=("server.shutdown_timeout", "server.graceful_timeout"), minimum=0),
    Option("server", "cors_enabled", bool, False, "answer browsers of other origins"),
    Option("server", "cors_origins", list, [], "origins that may call, exact; \"*\" means any",
           aliases=("cors.origins", "CORS_ORIGINS")),
    Option("server", "max_body_size", Size, Size.parse("100MB"), "largest request body", "bytes",
           aliases=("server.max_payload_size", "MAX_REQUEST_SIZE_MB"), minimum=1),
    Option("server", "max_inflated_size", Size, Size.parse("100MB"), "largest body after gzip or zstd is undone",
           "bytes", aliases=("MAX_DECOMPRESSED_SIZE_MB",), minimum=1),
    Option("server", "max_import_size", Size, Size.parse("500MB"), "largest file to import, as it comes and inflated",
           "bytes", minimum=1),
    Option("storage", "dir", str, "./data", "data directory; created with mode 0700", minimum=1),
    Option("storage", "database", str, "default", "metrics database of requests that name none", minimum=1,
           aliases=("storage.local.database", "STORAGE_LOCAL_DATABASE", "STORAGE_DATABASE")),
    Option("database", "url", str, "", "SQLAlchemy URL of the metadata database; empty: arc.db in the data directory",
           secret=True),
    Option("auth", "enabled", bool, True, "demand a token; false lets everyone do everything",
           aliases=("AUTH_ENABLED",)),
    Option("auth", "bootstrap_token", str, "", "the first admin token; empty: one is made up and shown once",
           secret=True, minimum=32, aliases=("auth.default_token", "DEFAULT_API_TOKEN")),
    Option("auth", "force_bootstrap", bool, False, "add an admin token `arc-recovery` at the start; to get back in"),
    Option("auth", "cache_ttl_s", int, 300, "how long a checked token is remembered", "seconds", minimum=0,
           aliases=("auth.cache_ttl", "AUTH_CACHE_TTL")),
    Option("auth", "allowlist", list, [], "more paths that need no token; a trailing * matches what is below",
           aliases=("AUTH_ALLOWLIST",)),
    Option("audit", "retention_days", float, 365.0, "entries of the audit trail are deleted after this long", "days",
           minimum=1 / 1440),
    Option("wal", "enabled", bool, True, "false is the same as sync = \"off\"", aliases=("WAL_ENABLED",)),
    Option("wal", "sync", str, "always", "when a write is on disk: before its answer, at intervals, some time",
           choices=("always", "interval", "off"), synonyms={"fsync": "always", "fdatasync": "always", "async": "off"},
           aliases=("wal.sync_mode", "WAL_SYNC_MODE")),
    Option("wal", "sync_interval_ms", int, 100, "pause between two syncs with sync = \"interval\"", "milliseconds",
           minimum=1),
    Option("wal", "segment_size", Size, Size.parse("64MB"), "size of one log file", "bytes", minimum=1024 * 1024,
           aliases=("wal.max_size_mb", "WAL_MAX_SIZE_MB")),
    Option("ingest", "buffer_rows", int, 500_000, "buffered rows that make a flush", "rows", minimum=1,
           aliases=("ingestion.buffer_size", "ingest.max_buffer_size", "WRITE_BUFFER_SIZE")),
    Option("ingest", "buffer_age_s", float, 60.0, "longest time a row waits for its flush", "seconds", minimum=0.1,
           aliases=("ingestion.buffer_age_seconds", "BUFFER_AGE_SECONDS", "WRITE_BUFFER_AGE")),
    Option("ingest", "buffer_size", Size, Size.parse("256MB"), "memory of all buffers; beyond it writes get 503",
           "bytes", minimum=1024 * 1024),
    Option("ingest", "compression", str, "snappy", "compression of Parquet files",
           choices=("snappy", "lz4", "zstd", "none"), aliases=("ingestion.compression", "WRITE_COMPRESSION")),
    Option("query", "timeout_s", float, 300.0, "longest time of a query", "seconds", minimum=0.001,
           aliases=("query.timeout",)),
    Option("query", "concurrency", int, 4, "queries that run at a time", minimum=1,
           aliases=("duckdb.pool_size", "DUCKDB_POOL_SIZE")),
    Option("query", "queue", int, 100, "queries that may wait for their turn; beyond it 503", minimum=0,
           aliases=("duckdb.max_queue_size", "DUCKDB_MAX_QUEUE_SIZE")),
    Option("query", "memory_limit", Size, Size(0), "memory of the query engine; 0: half of the machine's", "bytes",
           aliases=("duckdb.memory_limit", "database.memory_limit", "DUCKDB_MEMORY_LIMIT")),
    Option("query", "threads", int, 0, "threads of the query engine; 0: one per core", minimum=0,
           aliases=("duckdb.threads", "database.thread_count", "DUCKDB_THREADS")),
    Option("query", "max_sql_length", int, 10_000, "longest SQL text", "characters", minimum=1),
    Option("query", "strict_header_database", bool, False, "refuse `db.table` when a header names the database"),
    Option("query", "slow_query_threshold_ms", int, 0, "log queries that take longer; 0: none", "milliseconds",
           minimum=0),
    Option("query_cache", "enabled", bool, True, "keep answers of POST /query until the rows they show change",
           aliases=("QUERY_CACHE_ENABLED",)),
    Option("query_cache", "ttl_s", float, 60.0, "longest time an answer is kept", "seconds", minimum=0.001,
           aliases=("query_cache.ttl_seconds", "QUERY_CACHE_TTL")),
    Option("query_cache", "max_entries", int, 100, "answers that are kept; the one asked for longest ago goes first",
           minimum=1, aliases=("query_cache.max_size", "QUERY_CACHE_MAX_SIZE")),
    Option("query_cache", "max_result_size", Size, Size.parse("10MB"), "largest answer that is kept", "bytes",
           aliases=("query_cache.max_result_mb", "query_cache.max_result_size_mb", "QUERY_CACHE_MAX_RESULT_MB")),
    Option("query_cache", "max_total_size", Size, Size.parse("200MB"), "memory of all answers kept", "bytes",
           aliases=("query_cache.max_total_mb", "query_cache.max_total_size_mb", "QUERY_CACHE_MAX_TOTAL_MB")),
    Option("compaction", "enabled", bool, True, "merge small files", aliases=("COMPACTION_ENABLED",)),
    Option("compaction", "max_files_per_batch", int, 250, "files merged in one transaction", minimum=2, maximum=10_000),
    Option("compaction", "hourly_enabled", bool, True, "merge small files into middle ones"),
    Option("compaction", "hourly_schedule", str, "5 * * * *", "when, as a cron expression in UTC", check=_check_cron,
           aliases=("compaction.schedule", "COMPACTION_SCHEDULE")),
    Option("compaction", "hourly_min_age_hours", float, 0.0, "leave files with younger rows alone", "hours", minimum=0,
           aliases=("compaction.min_age_hours", "COMPACTION_MIN_AGE_HOURS")),
    Option("compaction", "hourly_min_files", int, 10, "least number of files worth a merge", minimum=2,
           aliases=("compaction.min_files", "COMPACTION_MIN_FILES")),
    Option("compaction", "hourly_target_size", Size, Size.parse("64MB"), "largest merged file; files below half merge",
           "bytes", aliases=("compaction.target_file_size_mb", "COMPACTION_TARGET_FILE_SIZE_MB"), minimum=1024 * 1024),
    Option("compaction", "daily_enabled", bool, True, "merge middle files into large ones",
           aliases=("compaction.daily.enabled", "COMPACTION_DAILY_ENABLED")),
    Option("compaction", "daily_schedule", str, "0 3 * * *", "when, as a cron expression in UTC", check=_check_cron,
           aliases=("compaction.daily.schedule", "COMPACTION_DAILY_SCHEDULE")),
    Option("compaction", "daily_min_age_hours", float, 24.0, "leave files with younger rows alone", "hours", minimum=0,
           aliases=("compaction.daily.min_age_hours", "COMPACTION_DAILY_MIN_AGE_HOURS")),
    Option("compaction", "daily_min_files", int, 12, "least number of files worth a merge", minimum=2,
           aliases=("compaction.daily.min_files", "COMPACTION_DAILY_MIN_FILES")),
    Option("compaction", "daily_target_size", Size, Size.parse("512MB"), "largest merged file; files below half merge",
           "bytes", aliases=("compaction.daily.target_file_size_mb", "COMPACTION_DAILY_TARGET_FILE_SIZE_MB"),
           minimum=1024 * 1024),
    Option("retention", "enabled", bool, True, "carry out retention policies by themselves"),
    Option("retention", "schedule", str, "0 3 * * *", "when, as a cron expression in UTC", check=_check_cron,
           aliases=("scheduler.retention_schedule",)),
    Option("continuous_queries", "enabled", bool, True, "run continuous queries by themselves",
           aliases=("continuous_query.enabled",)),
    Option("continuous_queries", "grace_s", float, 10.0, "how long after its end a window waits for late rows",
           "seconds", minimum=0),
    Option("continuous_queries", "timeout_s", float, 600.0, "longest time of one run", "seconds", minimum=0.001,
           aliases=("continuous_queries.timeout",)),
    Option("delete", "enabled", bool, False, "allow deletes by predicate", aliases=("DELETE_ENABLED",)),
    Option("delete", "confirmation_threshold", int, 10_000, "deletes of more rows are refused with their number first",
           "rows", minimum=0, aliases=("DELETE_CONFIRMATION_THRESHOLD",)),
    Option("delete", "max_rows_per_delete", int, 1_000_000, "rows that one delete may remove", "rows", minimum=1,
           aliases=("DELETE_MAX_ROWS",)),
    Option("collect", "host", bool, True, "sample the server's host into database `host`"),
    Option("collect", "interval_s", float, 10.0, "time between two samples", "seconds", minimum=0.1),
    Option("jobs", "enabled", bool, True, "serve the jobs API and run tasks; false answers 404",
           aliases=("TORK_COORDINATOR_API_ENDPOINTS_JOBS",)),
    Option("jobs", "max_document_size", int, 500_000, "largest job document", "bytes", minimum=1),
    Option("jobs", "wait_slots", int, 16, "submitters that may wait for the end of their jobs at a time; beyond it 503",
           minimum=0),
    Option("jobs", "encryption_key", str, "", "passphrase that encrypts secrets at rest; empty: a key file is made",
           secret=True, aliases=("TORK_DATASTORE_ENCRYPTION_KEY",)),
    Option("jobs", "redact", bool, True, "hide secrets in answers and logs",
           aliases=("TORK_MIDDLEWARE_JOB_REDACT_ENABLED",)),
    Option("jobs", "redact_patterns", list, [], "keys whose values are hidden, * matches anything; empty: those that"
           " contain SECRET, PASSWORD or ACCESS_KEY", aliases=("TORK_MIDDLEWARE_JOB_REDACT_PATTERNS",)),
    Option("jobs", "retention_days", float, 365.0, "ended jobs are deleted this long after their submission", "days",
           minimum=1 / 1440),
    Option("jobs", "log_retention_days", float, 7.0, "logs of tasks are deleted after this long", "days",
           minimum=1 / 1440),
    Option("jobs", "lease_s", float, 60.0, "a task whose node is silent for this long is given to another", "seconds",
           minimum=5),
    Option("jobs", "max_log_size", Size, Size.parse("100MB"), "longest log of an attempt at a task; the rest is left"
           " out", "bytes", minimum=1),
    Option("jobs", "max_result_size", Size, Size.parse("64KB"), "largest result of a task", "bytes", minimum=1),
    Option("fleet", "transport", str, "http", "how agents talk to the server", choices=("http",)),
    Option("fleet", "long_poll_slots", int, 64, "agents that may wait for work at a time; the others ask now and then",
           minimum=0, maximum=10_000),
    Option("fleet", "long_poll_s", float, 30.0, "longest wait of an agent for work", "seconds", minimum=0.1,
           maximum=300),
    Option("fleet", "offline_after_s", float, 45.0, "an agent is offline when nothing was heard of it for this long",
           "seconds", minimum=1, maximum=604_800),
    Option("fleet", "deliver_within_s", int, 60, "a command that its agent has not fetched by then fails", "seconds",
           minimum=1, maximum=31_536_000),
    Option("fleet", "execution_retention_days", float, 30.0, "commands, their logs and the events of agents are deleted"
           " this long after their last change", "days", minimum=1 / 1440, maximum=36_500),
    Option("fleet", "max_unavailable", int, 1, "machines that may reboot, or restart or update their agent, at a time"
           " by way of this server; the others wait; 0: no limit", minimum=0),
    Option("fleet", "max_unavailable_s", float, 1800.0, "a machine that has been silent about its reboot, restart or"
           " update for this long makes room for the next", "seconds", minimum=1),
    Option("fleet", "public_url", str, "", "address of this server for new machines; empty: as their admin called it",
           check=_check_url),
    Option("fleet", "update_url", str, "", "address where agents find newer versions; empty: this server",
           check=_check_url),
    Option("worker", "name", str, "Worker", "name of this host among the nodes", minimum=1,
           aliases=("TORK_WORKER_NAME",)),
    Option("worker", "queues", list, ["default=4"], "queues to serve, each with the number of tasks at a time"),
    Option("worker", "runtime", str, "auto", "how tasks run; auto: with an image as a container, else as a process",
           choices=("auto", "docker", "shell"), aliases=("TORK_RUNTIME_TYPE",)),
    Option("worker", "default_cpus", str, "", "CPU limit of containers without their own",
           aliases=("TORK_WORKER_LIMITS_CPUS",)),
    Option("worker", "default_memory", str, "", "memory limit of containers without their own",
           aliases=("TORK_WORKER_LIMITS_MEMORY",)),
    Option("worker", "default_timeout", str, "", "time limit of tasks without their own, such as 30m",
           aliases=("TORK_WORKER_LIMITS_TIMEOUT",)),
    Option("worker", "host_env", list, [], "variables of this host that tasks see, as NAME or NAME:ALIAS",
           aliases=("TORK_MIDDLEWARE_TASK_HOSTENV_VARS",)),
    Option("shell", "cmd", list, ["bash", "-c"], "interpreter of scripts", aliases=("TORK_RUNTIME_SHELL_CMD",)),
    Option("shell", "uid", str, "-", "user id or name that tasks run as; -: that of the server",
           aliases=("TORK_RUNTIME_SHELL_UID",)),
    Option("shell", "gid", str, "-", "group id or name that tasks run as; -: that of the server",
           aliases=("TORK_RUNTIME_SHELL_GID",)),
    Option("shell", "work_dir", str, "", "directory for the files of running tasks; empty: one in the data directory,"
           " which a uid of its own cannot reach"),
    Option("docker", "host", str, "", "address of the engine; empty: DOCKER_HOST, else its usual socket"),
    Option("docker", "config", str, "", "file with registry credentials; empty: ~/.docker/config.json",
           aliases=("TORK_RUNTIME_DOCKER_CONFIG",)),
    Option("docker", "privileged", bool, False, "run containers privileged",
           aliases=("TORK_RUNTIME_DOCKER_PRIVILEGED",)),
    Option("docker", "image_ttl_s", int, 259_200, "pulled images unused for this long are removed", "seconds",
           minimum=60),
    Option("docker", "image_verify", bool, False, "try a pulled image before it is used",
           aliases=("TORK_RUNTIME_DOCKER_IMAGE_VERIFY",)),
    Option("docker", "when_down", str, "wait", "container tasks while no engine answers: wait for it, or fail",
           choices=("wait", "fail")),
    Option("mounts", "bind_allowed", bool, False, "tasks may mount directories of this host",
           aliases=("TORK_MOUNTS_BIND_ALLOWED",)),
    Option("mounts", "bind_sources", list, [], "directories that may be mounted; empty: any",
           aliases=("TORK_MOUNTS_BIND_SOURCES",)),
    Option("node", "cluster_id", str, "", "cluster it belongs to; empty: one is made up at the first start and kept"),
    Option("node", "id", str, "", "its name in the cluster; empty: host name and port of the first start"),
    Option("node", "display_name", str, "", "what people call the cluster; empty: nothing"),
    Option("actions", "enabled", bool, True, "serve and carry out actions"),
    Option("actions", "interval_s", float, 1.0, "time between two steps of an action", "seconds", minimum=0.05,
           maximum=3600, aliases=("actions.execute_interval",)),
    Option("actions", "queue_max", int, 500, "actions that may wait; beyond it 429", minimum=1, maximum=100_000),
    Option("actions", "keep", int, 100, "finished actions that are kept", minimum=1, maximum=10_000_000,
           aliases=("actions.prune_keep",)),
    Option("actions", "history_max", int, 1000, "events kept per action; the first and the last stay", minimum=10,
           maximum=1_000_000),
    Option("actions", "payload_max", Size, Size.parse("64KB"), "largest state payload", "bytes", minimum=65_536,
           maximum=16 * 1024 * 1024),
    Option("actions", "crash_max", int, 3, "how often the process may die in one step before its action is given up",
           minimum=0, maximum=1000),
    Option("actions", "id_memory_days", int, 30, "how long the id of a deleted action counts as used", "days",
           minimum=0, maximum=36_500),
    Option("actions", "header_deny", list, [], "further request headers that are not kept with an action",
           check=_check_header_names),
    Option("actions", "requester_api", bool, False, "show requester AGENT_API as API, for clients that know no other",
           aliases=("compat.requester_api",)),
    Option("actions", "debug_kinds", bool, False, "offer agent.replicante.io/debug.*"),
    Option("actions", "plugins", str, "", "directory whose *.toml files add commands and external kinds; empty: none"),
    Option("actions", "service_supervisor", str, "none", "who looks after the service of this node",
           choices=("none", "systemd", "commands")),
    Option("actions", "service_unit", str, "", "its unit of systemd"),
    Option("actions", "service_running_states", list, ["running"], "sub-states of the unit that count as running"),
    Option("actions", "service_pid_command", list, [], "prints the process id of the service, or nothing",
           check=_check_command),
    Option("actions", "service_start_command", list, [], "starts it", check=_check_command),
    Option("actions", "service_stop_command", list, [], "stops it", check=_check_command),
    Option("actions", "service_wait_s", float, 30.0, "how long it may take to start or stop", "seconds", minimum=1,
           maximum=3600),
    Option("actions", "service_allow", list, [], "units that arc.edge/service.* may manage, * matches anything",
           check=_check_units),
    Option("actions", "reboot_command", list, [], "reboots this machine; empty: no arc.edge/node.reboot",
           check=_check_command),
    Option("actions", "update_command", list, [], "installs the version of Arc that is its last argument; empty: no"
           " arc.edge/agent.update", check=_check_command),
    Option("actions", "shutdown_command", list, [], "switches this machine off; empty: no arc.edge/node.shutdown",
           check=_check_command),
    Option("log", "level", str, "INFO", "least level that is logged", choices=("DEBUG", "INFO", "WARNING", "ERROR"),
           synonyms={"warn": "WARNING", "critical": "ERROR"}, aliases=("logging.level", "LOG_LEVEL")),
    Option("log", "format", str, "text", "one line per record, as text or as JSON", choices=("text", "json"),
           synonyms={"structured": "json"}, aliases=("logging.format", "LOG_FORMAT")),
    Option("log", "file", str, "", "file to log to; empty: standard error"),
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    option: Option
    value: Any
    source: str


class Config:
    """What is in force. Values are typed; `source` says which layer an option came from.

    read_again: all layers as they are now; raises ConfigError.
    """

    def __init__(self, settings: Iterable[Setting], read_again: Callable[[], Config]) -> None:
        self.read_again = read_again
        self._put({setting.option.key: setting for setting in settings})

    def _put(self, settings: dict[str, Setting]) -> None:
        sections: dict[str, dict[str, Any]] = {}
        for setting in settings.values():
            sections.setdefault(setting.option.section, {})[setting.option.name] = setting.value
        self._settings, self._sections = settings, sections

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._settings.values())

    def __repr__(self) -> str:
        changed = (f"{s.option.key}={s.option.show(s.value)}" for s in self if s.source != "default")
        return f"Config({', '.join(changed)})"

    def get(self, section: str, name: str) -> Any:
        return self._settings[f"{section}.{name}"].value

    def source(self, section: str, name: str) -> str:
        """`default`, `file PATH`, `environment VARIABLE` or `flag`."""
        return self._settings[f"{section}.{name}"].source

    def as_toml(self, with_secrets: bool) -> str:
        """What differs from the defaults, as a configuration file; secret options only `with_secrets`."""
        lines: list[str] = []
        for s in sorted(self, key=lambda s: s.option.section):
            if s.source != "default" and (with_secrets or not s.option.secret):
                heading = f"[{s.option.section}]"
                lines += [] if heading in lines else [heading]
                shown = dataclasses.replace(s.option, secret=False).show(s.value)
                lines.append(f"{s.option.name} = {shown}")
        return "".join(f"{line}\n" for line in lines)

    def section(self, section: str) -> dict[str, Any]:
        return dict(self._sections[section])

    def take(self, other: Config, options: Iterable[Option]) -> None:
        """Put these options in force as the other has them."""
        self._put(self._settings | {option.key: other._settings[option.key] for option in options})


def load(path: str | None, environ: Mapping[str, str], flags: Mapping[str, str]) -> Config:
    """Read all layers.

    path: the file of --config; None searches ARC_CONF, ./arc.conf, /etc/arc/arc.conf.
    flags: texts by `section.name`.
    Raises ConfigError naming the option, where it was found and the nearest valid name.
    """
    settings = {option.key: Setting(option, option.default, "default") for option in OPTIONS}
    file = _find_file(path, environ)
    for layer in (_file_layer(file) if file else [], _environment_layer(environ), _flag_layer(flags)):
        _apply(settings, layer)
    return Config(settings.values(), lambda: load(path, environ, flags))


def example() -> str:
    """The text of arc.conf.example: every option, commented out, with its default."""
    lines = ["# Configuration of Arc. Every option stands here with its default; remove the # to change it.",
             "# The same option in the environment: [server] port is ARC_SERVER_PORT."]  # fmt: skip
    for section, title in SECTIONS.items():
        lines += ["", f"# {title}", f"[{section}]"]
        for option in (option for option in OPTIONS if option.section == section):
            lines += _example_option(option)
    return "\n".join(lines) + "\n"


def _example_option(option: Option) -> list[str]:
    notes = [note for note in (option.unit, " | ".join(option.choices)) if note]
    suffix = f" ({'; '.join(notes)})" if notes else ""
    return [f"# {option.help}{suffix}", f"#{option.name} = {option.show(option.default)}"]


_Found = tuple[Option, Any, str, str]  # the option, its value, the name it was given under, the layer


def _apply(settings: dict[str, Setting], layer: Iterable[_Found]) -> None:
    names: dict[str, str] = {}
    for option, value, name, source in layer:
        if option.key in names:
            raise ConfigError(f"{source}: {names[option.key]} and {name} are the same option")
        names[option.key] = name
        settings[option.key] = Setting(option, value, source)


def _find_file(path: str | None, environ: Mapping[str, str]) -> Path | None:
    named = path or next((environ[name] for name in PATH_VARIABLES if environ.get(name)), None)
    if named is None:
        return next((found for found in SEARCH_PATHS if found.is_file()), None)
    if not Path(named).is_file():
        raise ConfigError(f"no configuration file {named}")
    return Path(named)


def _file_layer(path: Path) -> Iterator[_Found]:
    options = {key: option for option in OPTIONS for key in option.file_keys()}
    for key, raw in _flatten(_read_toml(path)):
        option = options.get(key)
        if option is None:
            raise ConfigError(f"{path}: unknown option {key}{_nearest(key, options)}")
        raw = f"{raw}MB" if key.endswith("_mb") and isinstance(raw, int) else raw
        yield option, _checked(option.parse, raw, f"{path}: {key}", option), key, f"file {path}"


def _environment_layer(environ: Mapping[str, str]) -> Iterator[_Found]:
    options = {name: option for option in OPTIONS for name in option.variables()}
    for name, text in environ.items():
        option = options.get(name)
        if option is None:
            _refuse_if_ours(name, options)
            continue
        text = f"{text}MB" if name.endswith("_MB") and text.isdecimal() else text
        yield option, _checked(option.parse_text, text, name, option), name, f"environment {name}"


def _flag_layer(flags: Mapping[str, str]) -> Iterator[_Found]:
    options = {option.key: option for option in OPTIONS}
    for key, text in flags.items():
        if key not in options:
            raise ConfigError(f"unknown option {key}{_nearest(key, options)}")
        yield options[key], _checked(options[key].parse_text, text, key, options[key]), key, "flag"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _refuse_if_ours(name: str, known: Iterable[str]) -> None:
    """Other programs may use ARC_ too; a variable with the name of one of our sections is meant for us."""
    if name.startswith(tuple(f"ARC_{section.upper()}_" for section in SECTIONS)):
        raise ConfigError(f"unknown environment variable {name}{_nearest(name, known)}")


def _checked(parse: Callable[[Any], Any], raw: Any, name: str, option: Option) -> Any:
    try:
        return parse(raw)
    except ValueError as error:
        shown = MASK if option.secret else repr(raw)
        raise ConfigError(f"{name} = {shown}: {error}") from None


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"; the nearest is {found[0]}" if found else ""


def _variable(key: str) -> str:
    return f"ARC_{key.upper().replace('.', '_')}"


def _typed(kind: type[Any], raw: Any) -> Any:
    if kind is list:
        return _string_list(raw)
    if kind is Size:
        return _size(raw)
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if type(raw) is not kind:  # bool is an int for isinstance
        raise ValueError(f"must be {_KIND_NAMES[kind]}")
    return raw


def _string_list(raw: Any) -> list[str]:
    if isinstance(raw, str):  # Python-era files hold comma texts
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    if not (isinstance(raw, list) and all(isinstance(part, str) for part in raw)):
        raise ValueError("must be a list of texts")
    return raw


def _size(raw: Any) -> Size:
    if isinstance(raw, str):
        return Size.parse(raw or "0")
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return Size(raw)
    raise ValueError("must be a size such as 64MB or 1GB")


def _from_text(kind: type[Any], text: str) -> Any:
    """What a TOML file would hold for this text."""
    text = text.strip()
    if kind is bool:
        return _BOOLS.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return text


_KIND_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}

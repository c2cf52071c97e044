"""The server: builds every part, hands collaborators over, starts in order, stops in reverse.

serve(config) -> Arc -> start: first token, listening socket, WAL replay beside it -> run until a signal -> stop
Requests are answered from the moment the socket listens; /ready is 503 until the replay is done.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack
from importlib.abc import MetaPathFinder
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import psutil

from arc import __version__, datadir, logs
from arc.access.audit import AuditRetention, AuditTrail
from arc.access.tokens import LastUsedWriter, TokenStore
from arc.db.engine import open_database
from arc.errors import ArcError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arc.backup.service import Sources
    from arc.config import Config
    from arc.loop import PeriodicLoop
    from arc.metrics.query.cache import CacheOptions
    from arc.metrics.query.engine import QueryOptions
    from arc.metrics.store import MetricStore, StoreOptions
    from arc.web.server import ArcServer

log = logging.getLogger(__name__)

# Objects until a look for garbage, then looks until older ones are looked at too. A request makes thousands of objects
# that end with it; Python's 700 had it look at them seven times per 5,000 values, for a twentieth of the decoding.
GC_THRESHOLD = (50_000, 20, 50)


def serve(config: Config) -> None:
    """Run a server until SIGTERM or SIGINT."""
    _exit_on_signals()
    sys.meta_path.insert(0, _WithoutPandas())
    gc.disable()  # what a start makes is here to stay: looking for garbage in it takes a sixth of the start
    app = Arc(config)
    if not os.isatty(0):  # the end of a terminal ends what was started there
        _call_on_hangup(app.node.ask_to_reload)
    try:
        app.start()
        app.run()
    finally:
        app.stop()
    if app.is_restarting:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same command again


class _WithoutPandas(MetaPathFinder):
    """Where pandas is installed, pyarrow imports it to recognise its objects, of which there are none: 40 MB, 0.6 s."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("a server does without pandas", name=name)


class Arc:
    """All parts of one server."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.is_restarting = False
        self._failure: Exception | None = None
        with ExitStack() as parts:  # unwinds what was built when a later part fails
            self._build(parts)
            self._parts = parts.pop_all()

    def start(self) -> None:
        """Listen, then replay the WAL in a thread, so that /health answers from the first moment."""
        self._server = self._listen()
        self._parts.callback(self._server.close)
        self._make_first_token()  # when the port is ours, so that a failed start shows no secret
        self._start_loop(LastUsedWriter(self.tokens))
        self._start_loop(AuditRetention(self.audit, self.config.get("audit", "retention_days")))
        self._start_cache_sweeper()
        self._start_sampler()
        for loop in self.upkeep.loops():
            self._start_loop(loop)
        _say(f"Arc {__version__} listens on {self._url()}, data directory {self.data_dir}")
        if self.config.get("jobs", "enabled"):
            self._parts.callback(self.jobs.stop)
            self.jobs.start()
        self.fleet.start()
        self._parts.callback(self.fleet.stop)
        self.queries.start()
        self._parts.callback(self.collector.stop)  # it starts when the store is ready
        self._opening = threading.Thread(target=self._open, name="open-metrics", daemon=True)
        self._opening.start()
        self._parts.callback(self._await_opening)

    def run(self) -> None:
        """Serve until SystemExit is raised in this thread. Raises what kept the metrics from opening."""
        gc.freeze()  # without a collection, which takes 0.2 s and finds next to nothing
        gc.set_threshold(*GC_THRESHOLD)
        gc.enable()
        self._server.run()
        if self._failure:
            raise ArcError(f"metrics cannot be opened: {self._failure}") from self._failure

    def stop(self) -> None:
        """Finish running requests, flush, close; may be called twice."""
        self._parts.close()

    def restart(self) -> None:
        """Have the server stop in good order and begin anew in the same process; returns at once."""
        self.is_restarting = True
        self._server.stop()

    def _build(self, parts: ExitStack) -> None:
        """Parts that only need each other; nothing runs yet."""
        self.data_dir = datadir.create(self.config.get("storage", "dir"))
        self.log_ring = _start_logging(self.config)
        parts.callback(logs.shutdown)
        parts.enter_context(datadir.locked(self.data_dir))
        self.db = open_database(self.data_dir, self.config.get("database", "url"))
        parts.callback(self.db.close)
        self.tokens = TokenStore(self.db, self.config.get("auth", "cache_ttl_s"))
        self.audit = AuditTrail(self.db)
        self._build_metrics(parts)
        self._build_jobs()
        self._build_fleet()
        self._build_node(parts)

    def _build_metrics(self, parts: ExitStack) -> None:
        from arc.backup.service import Backups
        from arc.metrics.collect import HostCollector
        from arc.metrics.importing import Importer
        from arc.metrics.query.cache import ResultCache
        from arc.metrics.query.engine import QueryEngine
        from arc.metrics.store import MetricStore
        from arc.metrics.upkeep import Upkeep

        self.store = MetricStore(self.data_dir, store_options(self.config))
        parts.callback(self.store.close)
        self.queries = QueryEngine(self.store, _query_options(self.config))
        parts.callback(self.queries.stop)
        self.cache = ResultCache(_cache_options(self.config))
        self.upkeep = Upkeep(self.store, self.queries, self.db, self.config)
        self.importer = Importer(self.store, self.data_dir / "tmp", self.config.get("server", "max_import_size"))
        self.backups = Backups(backup_sources(self.config, self.data_dir, self.store))
        parts.callback(self.backups.stop)
        self.collector = HostCollector(self.store.write_msgpack, self.config.get("collect", "interval_s"))

    def _build_jobs(self) -> None:
        from arc.jobs.service import Jobs

        self.jobs = Jobs(self.db, self.config, self.data_dir)

    def _build_fleet(self) -> None:
        from arc.fleet.service import Fleet

        self.fleet = Fleet(self.db, self.config, self.tokens, self.store.write_lines)

    def _build_node(self, parts: ExitStack) -> None:
        from arc.servernode import ServerNode

        self.node = ServerNode(self.config, self.data_dir, self.db, self.store, self.upkeep, self.backups, self.restart)
        parts.callback(self.node.stop)

    def _open(self) -> None:
        try:
            self.store.start()
        except Exception as error:
            log.exception("metrics cannot be opened; the server stops")
            self._failure = error
            self._server.stop()
            return
        if self.config.get("collect", "host"):
            self.collector.start()
        self.node.start()

    def _await_opening(self) -> None:
        """A stop during a long replay does not wait for it: the next start replays again, exactly once."""
        self._opening.join(self.config.get("server", "shutdown_timeout_s"))
        if self._opening.is_alive() and not self._failure:
            log.warning("stopped before the WAL was replayed; the next start does it")
            os._exit(0)  # its thread cannot be ended, and nothing else is open

    def _listen(self) -> ArcServer:
        from arc.web.application import HOT_PATHS, create_app
        from arc.web.parts import Parts
        from arc.web.server import ArcServer

        options = self.config.section("server")
        self.handed = Parts(
            self.config,
            self.tokens,
            self.store,
            self.queries,
            self.importer,
            self.backups,
            self.upkeep,
            self.jobs,
            self.fleet,
            self.audit,
            self.log_ring,
            self.cache,
            node=self.node.node,
        )
        try:
            return ArcServer(
                create_app(self.handed),
                options["host"],
                options["port"],
                options["threads"]
                + self.config.get("jobs", "wait_slots")
                + self.config.get("fleet", "long_poll_slots"),
                max_body_bytes=options["max_body_size"],
                max_import_bytes=options["max_import_size"],
                stop_timeout_s=options["shutdown_timeout_s"],
                on_stop=self._let_go,
                is_finishing=self.node.is_at_work,
                grouped=HOT_PATHS,
            )
        except OSError as error:
            raise ConfigError(f"cannot listen on {options['host']} port {options['port']}: {error.strerror}") from None

    def _let_go(self) -> None:
        """At the begin of a stop: answers that wait for something do not get it any more."""
        self.handed.is_stopping.set()
        self.jobs.begin_stop()
        self.fleet.stop_waiting()
        self.node.begin_stop()

    def _url(self) -> str:
        host = self.config.get("server", "host")
        shown = "localhost" if host in ("0.0.0.0", "::", "*") else f"[{host}]" if ":" in host else host  # noqa: S104
        return f"http://{shown}:{self._server.port}"

    def _make_first_token(self) -> None:
        auth = self.config.section("auth")
        if not auth["enabled"]:
            log.warning("[auth] enabled = false: everybody who reaches the port may do everything")
            return
        if secret := self.tokens.bootstrap(auth["bootstrap_token"] or None):
            _show_secret("FIRST RUN - INITIAL ADMIN TOKEN GENERATED", f"Initial admin API token: {secret}")
        elif auth["force_bootstrap"]:
            self.audit.record("token.recover", "arc-recovery", {}, status=200, client="configuration")
            if secret := self.tokens.recover(auth["bootstrap_token"] or None):
                _show_secret("ADMIN TOKEN arc-recovery GENERATED", f"Admin API token: {secret}")

    def _start_sampler(self) -> None:
        from arc.web.sampler import Sampler

        self._start_loop(Sampler(self.handed))

    def _start_cache_sweeper(self) -> None:
        from arc.metrics.query.cache import CacheSweeper

        self._start_loop(CacheSweeper(self.cache))

    def _start_loop(self, loop: PeriodicLoop) -> None:
        loop.start()
        self._parts.callback(loop.stop)


def backup_sources(config: Config, data_dir: Path, store: MetricStore) -> Sources:
    """What a backup is made of."""
    from arc.backup.service import Sources

    def copy_metrics(target: Path) -> list[dict[str, Any]]:
        databases: dict[str, dict[str, Any]] = {}
        for (database, measurement), stored in sorted(store.copy_to(target).items()):
            found = databases.setdefault(
                database, {"name": database, "measurements": [], "file_count": 0, "size_bytes": 0}
            )
            found["measurements"].append(measurement)
            found["file_count"] += stored.file_count
            found["size_bytes"] += stored.size_bytes
        return list(databases.values())

    return Sources(data_dir, copy_metrics, config.as_toml)


def store_options(config: Config) -> StoreOptions:
    from arc.metrics.store import StoreOptions

    wal, ingest, query = (config.section(name) for name in ("wal", "ingest", "query"))
    memory = query["memory_limit"] or psutil.virtual_memory().total // 2
    return StoreOptions(
        wal_sync=wal["sync"] if wal["enabled"] else "off",
        wal_sync_interval_ms=wal["sync_interval_ms"],
        wal_segment_bytes=wal["segment_size"],
        buffer_rows=ingest["buffer_rows"],
        buffer_age_s=ingest["buffer_age_s"],
        buffer_bytes=ingest["buffer_size"],
        max_inflated_bytes=config.get("server", "max_inflated_size"),
        compression=ingest["compression"],
        memory_limit=f"{memory // 1024}KiB",
        threads=query["threads"],
    )


def _query_options(config: Config) -> QueryOptions:
    from arc.metrics.query.engine import QueryOptions

    query = config.section("query")
    return QueryOptions(
        concurrency=query["concurrency"],
        queue=query["queue"],
        timeout_s=query["timeout_s"],
        max_sql_length=query["max_sql_length"],
        slow_ms=query["slow_query_threshold_ms"],
        default_database=config.get("storage", "database"),
    )


def _start_logging(config: Config) -> logs.LogRing:
    level, line_format, file = (config.get("log", name) for name in ("level", "format", "file"))
    try:
        return logs.setup(level, line_format, file)
    except OSError as error:
        raise ConfigError(f"[log] file = {file}: {error.strerror}") from None


def _cache_options(config: Config) -> CacheOptions:
    from arc.metrics.query.cache import CacheOptions

    cache = config.section("query_cache")
    return CacheOptions(
        enabled=cache["enabled"],
        ttl_s=cache["ttl_s"],
        max_entries=cache["max_entries"],
        max_result_bytes=cache["max_result_size"],
        max_total_bytes=cache["max_total_size"],
    )


def _exit_on_signals() -> None:
    """The first signal unwinds the main thread; a second one ends the process: what was acknowledged is in the WAL."""

    def on_signal(number: int, frame: Any) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: os._exit(1))
        # Not through the log: this thread may be inside it right now.
        os.write(2, f"arc: {signal.Signals(number).name}, finishing what runs; a second one ends at once\n".encode())
        raise SystemExit(0)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, on_signal)


def _call_on_hangup(call: Callable[[], None]) -> None:
    """Call this at each SIGHUP, in a thread of its own: what the handler interrupts may hold the lock that it needs."""
    asked: SimpleQueue[int] = SimpleQueue()  # a handler may use it
    signal.signal(signal.SIGHUP, lambda number, frame: asked.put(number))

    def run() -> None:
        while asked.get():
            call()

    threading.Thread(target=run, name="hangup", daemon=True).start()


def _show_secret(title: str, line: str) -> None:
    rule = "=" * 78
    _say("\n".join((rule, title, line, "SAVE THIS TOKEN! It will not be shown again.", rule)))


def _say(text: str) -> None:
    """To the operator, on standard error; never through the log, which is kept and shown to others."""
    print(text, file=sys.stderr, flush=True)

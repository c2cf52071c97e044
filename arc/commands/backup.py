"""Commands for what is kept: backup, restore, check."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from arc import clock, datadir
from arc.commands.options import configured, connected
from arc.commands.terminal import progress
from arc.errors import ArcError, Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arc.commands.client import Client
    from arc.config import Config

_POLL_S = 0.2


@click.command()
@configured
@connected
@click.option("--include-secrets", is_flag=True, help="Also the keys of stored secrets, and secret options.")
@click.argument("target", type=click.Path(path_type=Path), metavar="DIR|FILE.tar")
def backup(loaded: Config, target: Path, url: str | None, token: str | None, include_secrets: bool) -> None:
    """Copy everything the server keeps into a new directory or tar file, also while it runs.

    A running server is asked for it over HTTP, with a token that has permission admin; one on another machine too
    (--url). Without a server the data directory itself is read. --data wins over ARC_URL while no server runs on it.
    """
    data_dir = Path(loaded.get("storage", "dir")).expanduser().absolute()
    _check_target(target, data_dir)
    if url and (_is_flag("url") or loaded.source("storage", "dir") != "flag"):
        _from_server(url, token, target, include_secrets)
        return
    if not data_dir.is_dir():
        raise NotFound(f"no data directory {data_dir}")
    try:
        with datadir.locked(data_dir):
            _from_directory(loaded, data_dir, target, include_secrets)
    except datadir.DataDirInUse as in_use:
        from arc.commands.client import NoAnswer

        url = url or _configured_url(loaded)
        try:
            _from_server(url, token, target, include_secrets)
        except NoAnswer:
            text = f"data directory {data_dir} is in use by {in_use.holder}, but no server answers at {url}"
            raise ArcError(f"{text}; name the address of the one that runs with --url") from None


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="DIR", help="New data directory.")
@click.argument("source", type=click.Path(path_type=Path), metavar="BACKUP")
def restore(source: Path, data: Path) -> None:
    """Make a data directory out of a BACKUP, a directory or a tar file. Nothing is ever written over."""
    from arc.backup.archive import SETTINGS
    from arc.backup.restore import opened, restore

    with opened(source) as (size, stream), progress("restoring", size) as advance:
        work = restore(stream, data.absolute())
        manifest = _driven(work, advance)
    click.echo(f"restored {manifest.backup_id} of {manifest.created_at}: {manifest.total_files} files", err=True)
    if manifest.has_config:
        click.echo(f"the configuration of then is {data / SETTINGS}; use it with --config", err=True)
    click.echo(f"start it: python arc.py server --data {data}", err=True)


@click.command()
@configured
@click.option("--fix", is_flag=True, help="Remove files that nothing needs, cut unreadable ends off the log.")
@click.option(
    "--drop-damaged", is_flag=True, help="Go on without files whose rows are lost; what is left of them is kept aside."
)
@click.option("--deep", is_flag=True, help="Decode every row instead of looking at the ends of each file.")
def check(loaded: Config, fix: bool, drop_damaged: bool, deep: bool) -> None:
    """Verify the files of a data directory that no server uses; exit 1 if something is damaged."""
    data_dir = Path(loaded.get("storage", "dir")).expanduser().absolute()
    if not data_dir.is_dir():
        raise NotFound(f"no data directory {data_dir}")
    with datadir.locked(data_dir):
        damaged = _report(data_dir, fix=fix, drop=drop_damaged, deep=deep)
    if damaged:
        raise ArcError(f"{damaged} faults in {data_dir}")
    click.echo(f"{data_dir} is sound")


def _report(data_dir: Path, *, fix: bool, drop: bool, deep: bool) -> int:
    """Print each fault; returns how many of them are damage that remains."""
    from arc.db import sqlitefile
    from arc.metrics.storage.check import Fault, check_lake, check_log

    metadata = (Fault(path, text) for path in sorted(data_dir.glob("*.db")) for text in sqlitefile.faults(path))
    damaged = 0
    for fault in (*metadata, *check_log(data_dir / "wal"), *check_lake(data_dir / "lake", deep=deep)):
        ending = ""
        if fault.fix and fix:
            fault.fix()
            ending = f"; {fault.remedy}"
        elif fault.drop and drop:
            fault.drop()
            ending = "; dropped, what is left of it is in lake/damaged"
        elif fault.fix or fault.drop:
            ending = "; --fix helps" if fault.fix else "; to go on without it: --drop-damaged"
        damaged += fault.is_damage and not ((fault.fix and fix) or (fault.drop and drop))
        click.echo(f"{fault.path.relative_to(data_dir)}: {fault.text}{ending}")
    return damaged


def _from_directory(loaded: Config, data_dir: Path, target: Path, include_secrets: bool) -> None:
    """A backup of a data directory whose lock is ours."""
    from arc.app import backup_sources, store_options
    from arc.backup import archive
    from arc.backup.service import Content, Progress, new_id, remove_stages, take
    from arc.metrics.store import MetricStore

    remove_stages(data_dir)
    made = Progress("backup", new_id(), started_at=clock.now_us())
    staged = data_dir / "tmp" / made.backup_id
    store = MetricStore(data_dir, store_options(loaded))
    try:
        content = Content(secrets=include_secrets)
        with progress("reading") as advance:
            for size in take(backup_sources(loaded, data_dir, store), content, made, staged):
                advance(size, made.total_bytes)
        _deliver(archive.pack(staged), archive.packed_size(staged), target)
    finally:
        store.close()
        shutil.rmtree(staged, ignore_errors=True)


def _from_server(url: str, token: str | None, target: Path, include_secrets: bool) -> None:
    from arc.commands.client import Client

    with Client(url, token) as client:
        started = client.request("POST", "/api/v1/backup", json={"include_secrets": include_secrets}).json()
        path = f"/api/v1/backup/{started['backup_id']}"
        _await(client, started["backup_id"])
        try:
            answer = client.request("GET", f"{path}/archive", stream=True)
            _deliver(client.pieces(answer), int(answer.headers["Content-Length"]), target)
        finally:
            client.request("DELETE", path)


def _await(client: Client, backup_id: str) -> None:
    """Until the server has it. Raises ArcError when it failed."""
    with progress("reading") as advance:
        done = 0
        while True:
            status = client.request("GET", "/api/v1/backup/status").json()
            if status.get("backup_id") != backup_id or status["status"] == "failed":
                raise ArcError(f"the backup failed: {status.get('error', 'the server was started again')}")
            advance(status["processed_bytes"] - done, status["total_bytes"])
            done = status["processed_bytes"]
            if status["status"] == "completed":
                return
            time.sleep(_POLL_S)


def _is_flag(name: str) -> bool:
    """Whether an option of the running command stands on the command line, not in the environment."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _configured_url(loaded: Config) -> str:
    host, port = loaded.get("server", "host"), loaded.get("server", "port")
    host = "localhost" if host in ("0.0.0.0", "::", "*") else f"[{host}]" if ":" in host else host  # noqa: S104
    return f"http://{host}:{port}"


def _check_target(target: Path, data_dir: Path) -> None:
    if data_dir.is_dir() and target.resolve().is_relative_to(data_dir.resolve()):
        raise Conflict(f"{target} is inside of the data directory {data_dir}; a backup belongs elsewhere")
    is_full = target.is_dir() and any(target.iterdir())
    if is_full or (target.exists() and (_is_tar(target) or not target.is_dir())):
        raise Conflict(f"{target} is there already")


def _is_tar(target: Path) -> bool:
    return target.suffix == ".tar"


def _deliver(pieces: Iterator[bytes], size: int, target: Path) -> None:
    """A packed backup becomes a tar file, or a directory whose every byte was checked."""
    from arc.backup import archive

    with progress("writing", size) as advance:
        if _is_tar(target):
            _write_tar(pieces, target, advance)
        else:
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                _driven(archive.unpack(archive.Pieces(pieces), target), advance)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)  # it was empty
                raise
    click.echo(f"backup in {target}", err=True)


def _write_tar(pieces: Iterator[bytes], target: Path, advance: Callable[[int], None]) -> None:
    partial = target.with_name(f"{target.name}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for piece in pieces:
                file.write(piece)
                advance(len(piece))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def _driven(work: Any, advance: Callable[[int], None]) -> Any:
    """Run a generator of bytes done to its end; returns what it returns."""
    while True:
        try:
            advance(next(work))
        except StopIteration as end:
            return end.value

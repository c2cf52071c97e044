"""Commands that write metrics to a server and ask it: write, import, query, databases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from arc.commands.options import connected
from arc.commands.terminal import print_table, progress
from arc.errors import ArcError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arc.commands.client import Refused

_WRITE_PATHS = {"lp": "/write", "json": "/write/json", "ndjson": "/write/json"}
_WRITE_TYPES = {"lp": "text/plain", "json": "application/json", "ndjson": "application/x-ndjson"}
_PIECE_BYTES = 1 << 20
_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".lp": "lp", ".line": "lp", ".txt": "lp"}

_TIME_FORMATS = ["auto", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns"]

database_option = click.option("--database", metavar="NAME", help="Database; without it the server's default.")


def _one_character(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise click.BadParameter("must be one character, and no quote")
    return value


@click.command()
@connected
@database_option
@click.option("--format", "format_", type=click.Choice(list(_WRITE_PATHS)), default="lp", show_default=True,
              help="Line protocol, one JSON document, or JSON line by line.")  # fmt: skip
@click.option("--precision", default="ns", show_default=True, help="Unit of the timestamps of line protocol.")
@click.argument("file", type=click.File("rb"), default="-")
def write(
    file: IO[bytes], url: str | None, token: str | None, database: str | None, format_: str, precision: str
) -> None:
    """Send points to a server, from FILE or standard input, as they come."""
    from arc.commands.client import Client, Refused

    pieces = [file.read()] if format_ == "json" else _whole_lines(file)
    params = {"db": database, "precision": precision, "strict": "1"} if format_ == "lp" else {"db": database}
    before = 0  # lines that came before the piece
    with Client(url, token) as client:
        for piece in pieces:
            headers = {"Content-Type": _WRITE_TYPES[format_]}
            try:
                client.request("POST", _WRITE_PATHS[format_], params=params, data=piece, headers=headers)
            except Refused as error:
                raise _with_line(error, before) from None
            before += piece.count(b"\n")


@click.command("import")
@connected
@database_option
@click.option("--measurement", metavar="NAME", help="Measurement; without it the name of the file. Of line protocol:"
              " take points of this one only.")  # fmt: skip
@click.option("--format", "format_", type=click.Choice(["csv", "parquet", "lp"]), help="Without it by the file's name.")
@click.option("--time-column", metavar="NAME", help="Column that holds the time [time].")
@click.option("--time-format", type=click.Choice(_TIME_FORMATS), help="What numbers in it are [auto].")
@click.option("--delimiter", callback=_one_character, metavar="CHARACTER", help="Between the cells of CSV [,].")
@click.option("--skip-rows", type=click.IntRange(0, 1_000_000), metavar="N", help="Lines before the header of CSV [0].")
@click.option("--precision", metavar="UNIT", help="Unit of the timestamps of line protocol [ns].")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_file(
    file: Path, url: str | None, token: str | None, format_: str | None, measurement: str | None, **params: Any
) -> None:
    """Store all rows of a CSV, Parquet or line protocol FILE, plain or gzip, or none of them."""
    from arc.commands.client import Client, Upload

    name = file.with_suffix("") if file.suffix == ".gz" else file
    format_ = format_ or _SUFFIXES.get(name.suffix.lower())
    if format_ is None:
        raise click.UsageError(f"what {file.name} holds is not in its name; say it with --format")
    params["measurement"] = measurement or (None if format_ == "lp" else name.stem)
    params["db"] = params.pop("database")
    size = file.stat().st_size
    with Client(url, token) as client, file.open("rb") as content, progress(f"sending {file.name}", size) as advance:
        body = Upload(content, size, advance) if size else b""
        answer = client.request("POST", f"/api/v1/import/{format_}", params=params, data=body)
    result = answer.json()["result"]
    where = ", ".join(result.get("measurements") or [result.get("measurement", "")])
    click.echo(f"{result['rows_imported']} rows into {result['database']}: {where}", err=True)


@click.command()
@connected
@database_option
@click.option("--format", "format_", type=click.Choice(["table", "json", "ndjson", "csv", "arrow"]), default="table",
              show_default=True, help="How to print the rows.")  # fmt: skip
@click.argument("sql")
def query(sql: str, url: str | None, token: str | None, database: str | None, format_: str) -> None:
    """Ask a server SQL and print the rows; SQL may be - for standard input."""
    from arc.commands.client import Client

    if format_ == "arrow" and sys.stdout.isatty():
        raise click.UsageError("Arrow is for programs; send it into a file or a pipe")
    sql = sys.stdin.read() if sql == "-" else sql
    headers = {"x-arc-database": database} if database else {}
    with Client(url, token) as client:
        if format_ == "table":
            answer = client.request("POST", "/query", json={"sql": sql}, headers=headers).json()
            if answer["columns"]:
                print_table(answer["columns"], answer["data"])
            click.echo(f"({answer['row_count']} rows, {answer['execution_time_ms']:.0f} ms)", err=True)
            return
        asked = {"sql": sql, "format": format_}
        for piece in client.pieces(client.request("POST", "/query/stream", json=asked, headers=headers, stream=True)):
            sys.stdout.buffer.write(piece)
        if format_ == "json":
            sys.stdout.buffer.write(b"\n")


@click.command()
@connected
def databases(url: str | None, token: str | None) -> None:
    """List the databases of a server."""
    from arc.commands.client import Client

    with Client(url, token) as client:
        found = client.request("GET", "/api/v1/databases").json()["databases"]
    print_table(("database", "measurements"), [(each["name"], each["measurement_count"]) for each in found])


def _with_line(error: Refused, before: int) -> ArcError:
    """The refusal of a piece, with lines counted from the start of the file."""
    if not error.lines:
        return ArcError(f"behind line {before}: {error}") if before else error
    bad = error.lines[0]
    more = f" (and {len(error.lines) - 1} more lines)" if len(error.lines) > 1 else ""
    return ArcError(f"line {before + bad['line_number']}: {bad['reason']}: {bad['text']}{more}")


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """What has come so far, cut behind a line's end; while a piece is sent the next one gathers."""
    read = getattr(file, "read1", file.read)
    rest = b""
    while piece := read(_PIECE_BYTES):
        body = rest + piece
        end = _line_end(body)
        rest = body[end:]
        if end:
            yield body[:end]
    if rest:
        yield rest


def _line_end(body: bytes) -> int:
    """Behind the last newline that stands outside of a text; 0 when there is none."""
    end = last = body.rfind(b"\n") + 1
    while end and (body.count(b'"', 0, end) - body.count(b'\\"', 0, end)) % 2:
        end = body.rfind(b"\n", 0, end - 1) + 1
    return end or last

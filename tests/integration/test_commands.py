"""Commands for people, run as processes against a started server."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.server import LAUNCHER, TOKEN, ArcServer, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.server import Connection

COMMAND_S = 60.0  # longest a command may take
LINES = b'cpu,host=a usage=1.5,up=true 1\ncpu,host=b usage=2,note="two\nlines" 2\n'


@pytest.fixture
def environ(server: ArcServer) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ARC_")}
    return kept | {"ARC_URL": server.url, "ARC_TOKEN": TOKEN}


class Shell:
    """Runs `python arc.py ...` in an empty directory."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.directory, self.environ = directory, environ

    def __call__(self, *args: str | Path, stdin: bytes = b"", status: int = 0, **environ: str) -> Any:
        done = subprocess.run(
            [sys.executable, LAUNCHER, *map(str, args)],
            input=stdin,
            cwd=self.directory,
            env=self.environ | environ,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == status, done.stderr.decode()
        return done


@pytest.fixture
def arc(tmp_path: Path, environ: dict[str, str]) -> Shell:
    return Shell(tmp_path, environ)


def test_lines_are_written_and_asked_for(arc: Shell) -> None:
    arc("write", "--database", "plant", "--precision", "s", stdin=LINES)

    table = arc("query", "--database", "plant", "SELECT host, usage, up, note FROM cpu ORDER BY time")
    assert table.stdout.decode().splitlines() == [
        "host  usage  up    note",
        "----  -----  ----  ----------",
        "a       1.5  true",
        "b       2.0        two\\nlines",
    ]
    assert b"(2 rows, " in table.stderr


def test_formats(arc: Shell) -> None:
    sql = "SELECT range AS n, 'x,' || range AS s FROM range(2)"

    assert arc("query", sql, "--format", "csv").stdout == b'n,s\r\n0,"x,0"\r\n1,"x,1"\r\n'
    assert arc("query", sql, "--format", "ndjson").stdout == b'{"n":0,"s":"x,0"}\n{"n":1,"s":"x,1"}\n'
    assert json.loads(arc("query", sql, "--format", "json").stdout)["data"] == [[0, "x,0"], [1, "x,1"]]
    assert arc("query", sql, "--format", "json").stdout.endswith(b"}\n")
    with pa.ipc.open_stream(arc("query", "-", "--format", "arrow", stdin=sql.encode()).stdout) as reader:
        assert reader.read_all().to_pydict() == {"n": [0, 1], "s": ["x,0", "x,1"]}


def test_json_and_files(arc: Shell, client: Connection, tmp_path: Path) -> None:
    items = [{"m": "j", "t": number, "fields": {"v": number}} for number in range(1, 4)]
    (tmp_path / "items.json").write_text(json.dumps(items[:2]))

    arc("write", "--format", "json", "items.json")
    arc("write", "--format", "ndjson", stdin=json.dumps(items[2]).encode())

    assert client.query("SELECT v FROM j ORDER BY v") == [[1], [2], [3]]


def test_lines_go_out_as_they_come(arc: Shell, client: Connection) -> None:
    command = [sys.executable, LAUNCHER, "write", "--database", "pipe"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=arc.environ) as process:
        assert process.stdin is not None
        process.stdin.write(b"cpu v=1\ncpu v=")
        process.stdin.flush()

        wait_until(lambda: ["pipe"] in client.query("SHOW DATABASES"), "the first line")
        process.stdin.write(b"2\n")
        process.stdin.close()

        assert process.wait(COMMAND_S) == 0
    assert client.query("SELECT sum(v) FROM pipe.cpu") == [[3.0]]


@pytest.mark.parametrize("name", ["made.csv", "made.csv.gz", "made.parquet", "made.lp"])
def test_import(arc: Shell, client: Connection, tmp_path: Path, name: str) -> None:
    database = name.replace(".", "_")
    csv, path = b"time,v\n1,7\n2,8\n", tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"time": [1, 2], "v": [7, 8]}), path)
    else:
        path.write_bytes({".csv": csv, ".gz": gzip.compress(csv), ".lp": b"made v=7i 1\nmade v=8i 2\n"}[path.suffix])
    options = ["--precision", "s"] if name.endswith(".lp") else []

    done = arc("import", name, "--database", database, *options)

    assert f"2 rows into {database}: made" in done.stderr.decode()
    assert client.query(f"SELECT epoch(time)::BIGINT, v FROM {database}.made ORDER BY v") == [[1, 7], [2, 8]]


def test_an_import_goes_to_the_default_database_of_the_server(
    make_server: Callable[..., ArcServer], arc: Shell, tmp_path: Path
) -> None:
    (tmp_path / "made.csv").write_text("time,v\n1,7\n")

    with make_server(options={"storage.database": "plant"}) as other, other.connect() as connection:
        done = arc("import", "made.csv", "--url", other.url)

        assert "1 rows into plant: made" in done.stderr.decode()
        assert connection.query("SELECT v FROM plant.made") == [[7]]


def test_import_options(arc: Shell, client: Connection, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("exported by hand\nts;v\n5;x\n")

    arc(
        "import", "data.txt", "--format", "csv", "--measurement", "m", "--database", "opts",
        "--time-column", "ts", "--time-format", "epoch_ms", "--delimiter", ";", "--skip-rows", "1",
    )  # fmt: skip

    assert client.query("SELECT epoch_ms(time), v FROM opts.m") == [[5, "x"]]


def test_databases(arc: Shell) -> None:
    arc("write", "--database", "listed", stdin=b"cpu v=1\nmem v=1\n")

    assert ["listed", "2"] in [line.split() for line in arc("databases").stdout.decode().splitlines()]


def failure(arc: Shell, *args: str, status: int = 1, **more: Any) -> str:
    """The one line that a command ends with."""
    text: str = arc(*args, status=status, **more).stderr.decode()
    assert "Traceback" not in text
    return text.splitlines()[-1]


def test_errors_are_one_clear_line(arc: Shell, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "bad.csv").write_text("time,v\nnoon,1\n")
    (tmp_path / "unknown").touch()

    assert failure(arc, "databases", "--url", nobody).startswith(f"arc: no server answers at {nobody}")
    assert failure(arc, "databases", ARC_TOKEN="").startswith("arc: the server wants a token; give one with --token")
    assert failure(arc, "databases", "--token", "x" * 40) == "arc: the server refuses the token"
    assert failure(arc, "query", "SELEC 1").startswith("arc: ")
    assert "nonsense" in failure(arc, "write", stdin=b"cpu v=1\nnonsense\n")
    assert failure(arc, "import", "bad.csv") == "arc: row 1: 'noon' is no time"
    assert "say it with --format" in failure(arc, "import", "unknown", status=2)
    assert "does not exist" in failure(arc, "import", "missing.csv", status=2)
    assert failure(arc, "restore", "bad.csv", "--data", "new").startswith("arc: bad.csv is no backup")
    assert failure(arc, "restore", "missing", "--data", "new") == "arc: missing: No such file or directory"
    assert not (tmp_path / "new").exists()
    assert len(arc("query", "SELEC 1", status=1).stderr.splitlines()) == 1
    (tmp_path / "not.csv").write_bytes(b"PAR1\x15\x04\x15\x00\n1,2\n")
    assert failure(arc, "import", "not.csv") == "arc: the file is binary, not CSV"


def test_a_bad_line_is_named_by_its_number_in_the_input(arc: Shell) -> None:
    lines = b"cpu v=1\n" * 200_000  # more than one piece

    assert failure(arc, "write", "--database", "numbered", stdin=lines + b"x v=1\nnonsense\n").startswith(
        "arc: line 200002: "
    )


@pytest.mark.parametrize(
    "options", [("--time-format", "noon"), ("--delimiter", "ab"), ("--skip-rows", "-1"), ("--skip-rows", "x")]
)
def test_wrong_values_of_options_end_with_2(arc: Shell, tmp_path: Path, options: tuple[str, str]) -> None:
    (tmp_path / "good.csv").write_text("time,v\n1,1\n")

    assert options[0] in failure(arc, "import", "good.csv", *options, status=2)


def test_a_reader_that_has_seen_enough(arc: Shell) -> None:
    sql = "SELECT range FROM range(3000000)"
    command = [sys.executable, LAUNCHER, "query", sql, "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=arc.environ) as process:
        assert process.stdout is not None
        assert process.stdout.read(10) == b"range\r\n0\r\n"
        process.stdout.close()

        assert process.wait(COMMAND_S) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""

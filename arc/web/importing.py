"""Importing files over HTTP: CSV, Parquet, line protocol."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Literal

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from arc import clock
from arc.errors import Invalid
from arc.web import parse
from arc.web.parts import parts
from arc.web.surface import DATABASE_HEADER, Surface

if TYPE_CHECKING:
    from arc.metrics.importing import Imported

_BINARY = {"type": "string", "format": "binary"}
_FILE = {
    "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _BINARY}, "required": ["file"]}},
    "application/octet-stream": {"schema": _BINARY},
}

surface = Surface(
    "importing",
    "Import",
    "Whole files, as the part `file` of a form or as the body itself, plain or gzip. A file with anything in it that"
    " cannot be read is refused whole; 200 means that all its rows are on disk.",
)


class _Target(BaseModel):
    db: str | None = Field(None, description="Database; the header wins. Without both the default one")


class _Timed(_Target):
    measurement: str = Field(min_length=1)
    time_column: str = Field("time", min_length=1)
    time_format: Literal["auto", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns"] = Field(
        "auto", description="auto takes instants as text, and numbers by their size"
    )


class CsvQuery(_Timed):
    delimiter: str = Field(",", min_length=1, max_length=1)
    skip_rows: int = Field(0, ge=0, le=1_000_000, description="Lines before the header")


class ParquetQuery(_Timed):
    pass


class LinesQuery(_Target):
    measurement: str = Field("", description="Take points of this measurement only")
    precision: str = Field("ns", description="Unit of the timestamps: ns, us, ms, s, m, h")


class ImportResult(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "database": "plant",
                "measurement": "cpu",
                "rows_imported": 1000,
                "partitions_created": 1,
                "time_range_min": "2025-10-19T12:00:00Z",
                "time_range_max": "2025-10-19T12:16:39Z",
                "columns": ["time", "host", "usage"],
                "duration_ms": 41.7,
            }
        }
    )

    database: str
    measurement: str
    rows_imported: int
    partitions_created: int = Field(description="Into how many hours the rows fall")
    time_range_min: str
    time_range_max: str
    columns: list[str]
    duration_ms: float


class LinesResult(BaseModel):
    database: str
    measurements: list[str]
    rows_imported: int
    precision: str
    duration_ms: float


class ImportAnswer(BaseModel):
    status: str
    result: ImportResult


class LinesAnswer(BaseModel):
    status: str
    result: LinesResult


class ImportStats(BaseModel):
    status: str
    stats: dict[str, int]


@surface.api(
    "POST", "/api/v1/import/csv",
    needs="write", answers={200: ImportAnswer}, errors=[413, 422, 503], headers=[DATABASE_HEADER], body=_FILE,
)  # fmt: skip
def import_csv(query: CsvQuery) -> Response:
    """Store the rows of a CSV file. The first line names the columns; each gets one type, by all its cells."""
    done = parts().importer.import_csv(
        _file(), _database(), query.measurement,
        time_column=query.time_column, time_format=query.time_format,
        delimiter=query.delimiter, skip_rows=query.skip_rows,
    )  # fmt: skip
    return _answer(query.measurement, done)


@surface.api(
    "POST", "/api/v1/import/parquet",
    needs="write", answers={200: ImportAnswer}, errors=[413, 422, 503], headers=[DATABASE_HEADER], body=_FILE,
)  # fmt: skip
def import_parquet(query: ParquetQuery) -> Response:
    """Store the rows of a Parquet file. Decimals become floats, lists and structures JSON text."""
    done = parts().importer.import_parquet(
        _file(), _database(), query.measurement, time_column=query.time_column, time_format=query.time_format
    )
    return _answer(query.measurement, done)


@surface.api(
    "POST", "/api/v1/import/lp",
    needs="write", answers={200: LinesAnswer}, errors=[413, 422, 503], headers=[DATABASE_HEADER], body=_FILE,
)  # fmt: skip
def import_line_protocol(query: LinesQuery) -> Response:
    """Store the points of a file of line protocol. Unlike a write, an import takes all lines or none."""
    done = parts().importer.import_lines(_file(), _database(), measurement=query.measurement, precision=query.precision)
    result = {
        "database": done.database,
        "measurements": done.measurements,
        "rows_imported": done.rows,
        "precision": query.precision,
        "duration_ms": done.duration_ms,
    }
    return jsonify(status="ok", result=result)


@surface.api("GET", "/api/v1/import/stats", needs="admin", answers={200: ImportStats})
def import_stats() -> Response:
    """Imports since the start."""
    counters = parts().importer.counters
    stats = {
        "total_requests": counters.requests,
        "total_records": counters.rows,
        "total_errors": counters.errors,
    }
    return jsonify(status="success", stats=stats)


def _file() -> IO[bytes]:
    """The uploaded file, which the server has whole."""
    if request.mimetype != "multipart/form-data":
        whole: IO[bytes] = request.environ["wsgi.input"]
        return whole
    if "file" not in request.files:
        raise Invalid("the form needs a part called file")
    return request.files["file"].stream


def _database() -> str:
    return parse.write_database(request.environ, parts().config.get("storage", "database"))


def _answer(measurement: str, done: Imported) -> Response:
    result: dict[str, Any] = {
        "database": done.database,
        "measurement": measurement,
        "rows_imported": done.rows,
        "partitions_created": len(done.hours),
        "time_range_min": clock.rfc3339(done.first_us),
        "time_range_max": clock.rfc3339(done.last_us),
        "columns": done.columns,
        "duration_ms": done.duration_ms,
    }
    return jsonify(status="ok", result=result)

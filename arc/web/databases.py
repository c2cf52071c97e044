"""Databases: which there are, what is in them, making and dropping them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from arc import clock
from arc.errors import Denied, Invalid, NotFound
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from arc.metrics.store import MeasurementInfo

surface = Surface("databases", "Databases", "Databases and their measurements. A write makes both by itself.")


class DatabasePath(BaseModel):
    name: str


class NewDatabase(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"name": "plant"}})

    name: str


class DropQuery(BaseModel):
    confirm: bool = False


class DatabaseInfo(BaseModel):
    name: str
    measurement_count: int
    created_at: str | None = None


class Databases(BaseModel):
    databases: list[DatabaseInfo]
    count: int


class ColumnInfo(BaseModel):
    name: str
    type: str = Field(description="DuckDB's name of the type; NULL while only nulls have arrived")


class MeasurementDetails(BaseModel):
    name: str
    file_count: int
    size_bytes: int = Field(description="Of its Parquet files")
    row_count: int
    buffered_rows: int = Field(description="Those of them not in a file yet")
    columns: list[ColumnInfo]
    first_time: str | None = Field(description="Time of the earliest row")
    last_time: str | None


class DatabaseMeasurements(BaseModel):
    database: str
    measurements: list[MeasurementDetails]
    count: int


class Dropped(BaseModel):
    message: str
    files_deleted: int


@surface.api("GET", "/api/v1/databases", needs="read", answers={200: Databases}, errors=[503])
def list_databases() -> Response:
    """All databases and how many measurements each has."""
    counts = dict.fromkeys(_names(), 0)
    for info in parts().store.measurements():
        counts[info.database] = counts.get(info.database, 0) + 1
    found = [{"name": name, "measurement_count": count} for name, count in sorted(counts.items())]
    return jsonify(databases=found, count=len(found))


@surface.api("POST", "/api/v1/databases", needs="admin", answers={201: DatabaseInfo}, errors=[409, 503])
def create_database(body: NewDatabase) -> tuple[Response, int]:
    """Make an empty database. There is no need to: the first write to one makes it too."""
    parts().store.create_database(body.name)
    return jsonify(name=body.name, measurement_count=0, created_at=clock.rfc3339(clock.now_us())), 201


@surface.api("GET", "/api/v1/databases/<name>", needs="read", answers={200: DatabaseInfo}, errors=[404, 503])
def show_database(path: DatabasePath) -> Response:
    """One database."""
    name = spelling(path.name)
    return jsonify(name=name, measurement_count=len(parts().store.measurements(name)))


@surface.api(
    "GET", "/api/v1/databases/<name>/measurements", needs="read", answers={200: DatabaseMeasurements}, errors=[404, 503]
)
def list_database_measurements(path: DatabasePath) -> Response:
    """Measurements of a database: columns, rows, bytes and the time they cover."""
    name = spelling(path.name)
    found = [_details(info) for info in parts().store.measurements(name)]
    return jsonify(database=name, measurements=found, count=len(found))


@surface.api(
    "DELETE", "/api/v1/databases/<name>",
    needs="admin", answers={200: Dropped}, errors=[404, 503], audit="database.drop",
)  # fmt: skip
def drop_database(path: DatabasePath, query: DropQuery) -> Response:
    """Remove a database with all its rows, buffered ones too. Needs `[delete] enabled` and `confirm=true`."""
    if not parts().config.get("delete", "enabled"):
        raise Denied("Delete operations are disabled. Set delete.enabled=true in arc.conf to enable.")
    name = spelling(path.name)
    if not query.confirm:
        raise Invalid("Confirmation required. Add ?confirm=true to delete the database.")
    files = parts().store.drop_database(name)
    return jsonify(message=f"Database '{name}' deleted successfully", files_deleted=files)


def _names() -> list[str]:
    """The default database is there even while it is empty, as in SHOW DATABASES."""
    default = parts().config.get("storage", "database")
    names = parts().store.databases()
    return names if default.casefold() in {name.casefold() for name in names} else [default, *names]


def spelling(name: str) -> str:
    """The name as it was first written. Raises NotFound."""
    for known in _names():
        if known.casefold() == name.casefold():
            return known
    raise NotFound(f"Database '{name}' not found")


def nothing_in(database: str, measurement: str | None = None) -> str | None:
    """What is not there (yet), as a sentence; None when the measurement, or without one the database, is there."""
    found = _measurements(database)
    if measurement is not None and measurement.casefold() not in found:
        return f"Measurement '{database}.{measurement}' does not exist yet"
    if not found and database.casefold() not in {name.casefold() for name in _names()}:
        return f"Database '{database}' does not exist yet"
    return None


def check_measurement(database: str | None, measurement: str) -> None:
    """Raises NotFound unless there is such a measurement in the database, or without one in some."""
    if measurement.casefold() not in _measurements(database):
        raise NotFound(f"Measurement '{measurement if database is None else f'{database}.{measurement}'}' not found")


def _measurements(database: str | None) -> set[str]:
    return {info.measurement.casefold() for info in parts().store.measurements(database)}


def _details(info: MeasurementInfo) -> dict[str, Any]:
    times = [time_us for time_us in (info.first_us, info.last_us, *_buffered_times(info)) if time_us is not None]
    return {
        "name": info.measurement,
        "file_count": info.file_count,
        "size_bytes": info.total_size_bytes,
        "row_count": info.rows,
        "buffered_rows": info.buffered_rows,
        "columns": [{"name": name, "type": kind} for name, kind in info.columns],
        "first_time": _instant(min(times)) if times else None,
        "last_time": _instant(max(times)) if times else None,
    }


def _instant(us: int) -> str:
    """Like clock.rfc3339, but for years that Python's own dates do not reach."""
    return str(np.datetime64(us, "us")).rstrip("0").rstrip(".") + "Z"


def _buffered_times(info: MeasurementInfo) -> tuple[int | None, ...]:
    """Least and greatest time, in microseconds, of the rows that are in no file yet."""
    if not info.buffered_rows:
        return ()
    [view] = parts().store.views([(info.database, info.measurement)])
    if view is None or view.buffered is None:
        return ()
    ends = pc.min_max(view.buffered.column("time"))
    return ends["min"].value, ends["max"].value

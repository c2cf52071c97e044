"""What client libraries and agents made for InfluxDB 1.x and 2.x ask beyond writing: databases, buckets, InfluxQL.

Databases are what 1.x calls databases and 2.x buckets. Queries proper are SQL: /query (arc/web/query.py).
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flask import Response, current_app, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from arc.access.tokens import EVERYONE
from arc.errors import Conflict, Unsupported
from arc.metrics.query import influxql
from arc.metrics.query.influxql import Kind
from arc.web.auth import ANY, IDENTITY_KEY
from arc.web.parts import parts
from arc.web.surface import Surface

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arc.access.tokens import Identity
    from arc.metrics.query.influxql import Statement
    from arc.web.auth import Gate

    Series = dict[str, Any]

QUERY_PATHS = ("/query", "/api/v1/query")
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
ORGANIZATION = "arc"  # for clients that do not name theirs; Arc has none of its own
MAX_BUCKETS = 100  # of one answer, as in InfluxDB
FIELD_TYPES = {"BIGINT": "integer", "DOUBLE": "float", "BOOLEAN": "boolean"}  # all others are strings
POLICY = ["autogen", "0s", "168h0m0s", 1, True]  # the one that InfluxDB gives every database: keep everything
POLICY_COLUMNS = ["name", "duration", "shardGroupDuration", "replicaN", "default"]

surface = Surface("influx", "InfluxDB clients", "What clients of InfluxDB 1.x and 2.x ask besides writing.")


class InfluxQuery(BaseModel):
    q: str = Field("", description="InfluxQL: CREATE DATABASE, SHOW DATABASES, SHOW MEASUREMENTS, ...")
    db: str = Field("", description="Database of statements that name none")


class InfluxResults(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "results": [
                    {
                        "statement_id": 0,
                        "series": [{"name": "databases", "columns": ["name"], "values": [["default"]]}],
                    }
                ]
            }
        }
    )

    results: list[dict[str, Any]]


class BucketQuery(BaseModel):
    name: str | None = None
    id: str | None = None
    org: str | None = None
    after: str | None = Field(None, description="Buckets behind the one with this id")
    offset: int = Field(0, ge=0)
    limit: int = Field(MAX_BUCKETS, ge=1)


class NewBucket(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"name": "factory", "orgID": "0123456789abcdef"}})

    name: str = Field(description="Name of the database")
    orgID: str | None = Field(None, description="Given back, not used")


class Bucket(BaseModel):
    id: str
    name: str
    orgID: str
    type: str
    retentionRules: list[dict[str, Any]]


class Buckets(BaseModel):
    buckets: list[Bucket]
    links: dict[str, str]


class OrganizationQuery(BaseModel):
    org: str = ORGANIZATION


class Organizations(BaseModel):
    orgs: list[dict[str, str]]
    links: dict[str, str]


class Setup(BaseModel):
    allowed: bool


@surface.api("GET", "/query", "/api/v1/query", needs=ANY, answers={200: InfluxResults})
def influxql_query(query: InfluxQuery) -> Response:
    """Run InfluxQL that lists or creates databases, as InfluxDB 1.x clients do; for data ask SQL by `POST`.

    A `POST` whose form or query string has `q` is answered the same. Creating a database needs permission `write`,
    listing needs `read`. Statements about users and retention policies are accepted and have no effect.
    """
    return _answer(query.q, query.db)


def influxql_instead_of_sql() -> Response | None:
    """The answer to a POST that asks InfluxQL where others ask SQL; it checks access by statement, as GET does."""
    if request.method != "POST" or request.path not in QUERY_PATHS or not _asks_influxql():
        return None
    gate: Gate = current_app.extensions["arc.gate"]
    gate.admit(request.environ, ANY)
    return _answer(request.values["q"], request.values.get("db", ""))


@surface.api("GET", "/api/v2/buckets", needs="read", answers={200: Buckets})
def list_buckets(query: BucketQuery) -> Response:
    """Databases, as InfluxDB 2.x clients list buckets."""
    found = [_bucket(name, _id(query.org or ORGANIZATION)) for name in parts().store.databases()]
    if query.after is not None:
        ids = [bucket["id"] for bucket in found]
        found = found[ids.index(query.after) + 1 :] if query.after in ids else []
    found = [bucket for bucket in found if query.name in (None, bucket["name"]) and query.id in (None, bucket["id"])]
    end = query.offset + min(query.limit, MAX_BUCKETS)
    page, links = found[query.offset : end], {"self": "/api/v2/buckets"}
    if end < len(found):
        links["next"] = f"/api/v2/buckets?limit={query.limit}&after={page[-1]['id']}"
    return jsonify(buckets=page, links=links)


@surface.api("POST", "/api/v2/buckets", needs="write", answers={201: Bucket}, errors=[409])
def create_bucket(body: NewBucket) -> tuple[Response, int]:
    """Create a database, as InfluxDB 2.x clients create a bucket. Retention rules are not applied."""
    parts().store.create_database(body.name)
    return jsonify(_bucket(body.name, body.orgID or _id(ORGANIZATION))), 201


@surface.api("GET", "/api/v2/orgs", needs=ANY, answers={200: Organizations})
def list_organizations(query: OrganizationQuery) -> Response:
    """The organization the client asks for: Arc has none, and clients need its id to create a bucket."""
    return jsonify(orgs=[{"id": _id(query.org), "name": query.org}], links={"self": "/api/v2/orgs"})


@surface.api("GET", "/api/v2/setup", needs=ANY, answers={200: Setup})
def setup_state() -> Response:
    """Whether the server still waits to be set up; never."""
    return jsonify(allowed=False)


@surface.api("POST", "/api/v2/query", needs="read", answers={}, errors=[501])
def flux_query() -> Response:
    """Flux is not supported."""
    raise Unsupported("Flux is not supported; ask SQL at POST /query")


@surface.api("POST", "/api/v2/delete", needs="delete", answers={}, errors=[501])
def delete_by_predicate() -> Response:
    """Deleting the way of InfluxDB 2.x is not supported."""
    raise Unsupported("deleting by an InfluxDB predicate is not supported; use POST /api/v1/delete")


def _asks_influxql() -> bool:
    if "q" in request.args:
        return True
    # `curl -d` calls everything a form, JSON too; reading the body first keeps it for the SQL route.
    return request.mimetype in FORMS and not request.get_data().lstrip().startswith(b"{") and "q" in request.form


def _answer(text: str, database: str) -> Response:
    identity: Identity = request.environ.get(IDENTITY_KEY, EVERYONE)
    statements = influxql.parse(text)
    for statement in statements:
        identity.require("read" if statement.kind.name.startswith("SHOW") else "write")
    results = []
    for number, statement in enumerate(statements):
        series = _run(statement, statement.database or database or parts().config.get("storage", "database"))
        results.append({"statement_id": number} | ({"series": series} if series else {}))
    return jsonify(results=results)


def _run(statement: Statement, database: str) -> list[Series]:
    store = parts().store
    match statement.kind:
        case Kind.CREATE_DATABASE:
            with suppress(Conflict):  # it is there already, as wanted
                store.create_database(statement.database)
        case Kind.SHOW_DATABASES:
            return [_series("databases", ["name"], ([name] for name in store.databases()))]
        case Kind.SHOW_MEASUREMENTS:
            names = ([info.measurement] for info in store.measurements(database))
            return _unless_empty(_series("measurements", ["name"], names))
        case Kind.SHOW_RETENTION_POLICIES:
            return [{"columns": POLICY_COLUMNS, "values": [POLICY]}]
        case Kind.SHOW_TAG_KEYS | Kind.SHOW_FIELD_KEYS:
            return _keys(statement, database)
    return []


def _keys(statement: Statement, database: str) -> list[Series]:
    """A series for each measurement that has tags, or fields."""
    found: list[Series] = []
    wanted = {name.casefold() for name in statement.measurements}
    for info in parts().store.measurements(database):
        if wanted and info.measurement.casefold() not in wanted:
            continue
        tags = parts().store.schema(database, info.measurement).tags
        if statement.kind is Kind.SHOW_TAG_KEYS:
            series = _series(info.measurement, ["tagKey"], ([tag] for tag in sorted(tags)))
        else:
            fields = ([name, FIELD_TYPES.get(kind, "string")] for name, kind in info.columns[1:] if name not in tags)
            series = _series(info.measurement, ["fieldKey", "fieldType"], fields)
        found += _unless_empty(series)
    return found


def _series(name: str, columns: list[str], rows: Iterable[list[Any]]) -> Series:
    return {"name": name, "columns": columns, "values": list(rows)}


def _unless_empty(series: Series) -> list[Series]:
    return [series] if series["values"] else []


def _bucket(name: str, organization_id: str) -> dict[str, Any]:
    return {"id": _id(name), "name": name, "orgID": organization_id, "type": "user", "retentionRules": []}


def _id(name: str) -> str:
    """InfluxDB's ids are 16 hexadecimal digits."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()

"""InfluxQL: the few statements that clients of InfluxDB 1.x send besides writing."""

from __future__ import annotations

import pytest

from arc.errors import Invalid
from arc.metrics.query.influxql import Kind, Statement, parse


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ('CREATE DATABASE "my-db"', Statement(Kind.CREATE_DATABASE, "my-db")),
        ("create database telegraf", Statement(Kind.CREATE_DATABASE, "telegraf")),
        ("CREATE DATABASE my-db WITH DURATION 3d REPLICATION 1", Statement(Kind.CREATE_DATABASE, "my-db")),
        (r'CREATE DATABASE "a\"b"', Statement(Kind.CREATE_DATABASE, 'a"b')),
        ("SHOW DATABASES", Statement(Kind.SHOW_DATABASES)),
        (" show\ndatabases ; ", Statement(Kind.SHOW_DATABASES)),
        ("SHOW MEASUREMENTS", Statement(Kind.SHOW_MEASUREMENTS)),
        ('SHOW MEASUREMENTS ON "x"', Statement(Kind.SHOW_MEASUREMENTS, "x")),
        ('SHOW RETENTION POLICIES ON "x"', Statement(Kind.SHOW_RETENTION_POLICIES, "x")),
        ("SHOW TAG KEYS", Statement(Kind.SHOW_TAG_KEYS)),
        ('SHOW TAG KEYS ON x FROM "cpu", mem', Statement(Kind.SHOW_TAG_KEYS, "x", ("cpu", "mem"))),
        ('SHOW FIELD KEYS FROM "autogen"."cpu"', Statement(Kind.SHOW_FIELD_KEYS, "", ("cpu",))),
        ('CREATE RETENTION POLICY "a" ON "x" DURATION 1d REPLICATION 1', Statement(Kind.NOTHING)),
        ('DROP RETENTION POLICY "a" ON "x"', Statement(Kind.NOTHING)),
        ("CREATE USER u WITH PASSWORD 'a;\"b' WITH ALL PRIVILEGES", Statement(Kind.NOTHING)),
    ],
)
def test_statement(text, statement):
    assert parse(text) == [statement]


def test_several_statements():
    assert [statement.kind for statement in parse('CREATE DATABASE "a;b"; SHOW DATABASES;')] == [
        Kind.CREATE_DATABASE,
        Kind.SHOW_DATABASES,
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'missing required parameter "q"'),
        (" ; ", 'missing required parameter "q"'),
        ('SELECT * FROM "cpu"', "InfluxQL SELECT is not supported; use SQL"),
        ("DROP DATABASE x", "InfluxQL DROP DATABASE x is not supported; use SQL"),
        ('"SHOW" DATABASES', "InfluxQL SHOW DATABASES is not supported; use SQL"),
        ("CREATE", "InfluxQL CREATE is not supported; use SQL"),
        ("CREATE DATABASE", "InfluxQL: a name is missing at the end"),
        ("CREATE DATABASE x y", "InfluxQL: unexpected y"),
        ("SHOW TAG KEYS FROM cpu,", "InfluxQL: a name is missing at the end"),
        ("SHOW MEASUREMENTS FROM cpu", "InfluxQL: unexpected FROM"),
        ("SHOW DATABASES LIMIT 1", "InfluxQL: unexpected LIMIT"),
    ],
)
def test_what_is_not_known_is_refused(text, error):
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert str(caught.value) == error

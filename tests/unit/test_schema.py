"""Schemas only widen, in any order to the same end; names compare without case."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc.errors import Invalid
from arc.metrics.decode.batch import Batch
from arc.metrics.storage.schema import ARROW_TYPES, MAX_COLUMNS, TIME, TIME_TYPE, TableSchema, rows_as_table, widen

TIMES = pa.array([1, 2], pa.timestamp("us", "UTC"))
VALUES = {
    "NULL": pa.nulls(2),
    "BIGINT": pa.array([1, None], pa.int64()),
    "DOUBLE": pa.array([0.5, None]),
    "BOOLEAN": pa.array([True, None]),
    "VARCHAR": pa.array(["a", None]),
    "BLOB": pa.array([b"a", None]),
}
KINDS = sorted(VALUES)


def batch(tags=(), **kinds):
    """A batch of two rows with a column of each name and type."""
    columns = {name: VALUES[kind] for name, kind in kinds.items()}
    return Batch("m", {TIME: TIMES, **columns}, 2, tuple(tags))


def grown(*batches, schema=None):
    """The schema after batches that came one by one."""
    schema = schema or TableSchema("db", "m")
    for each in batches:
        schema = schema.grown_by([each])
    return schema


def types(schema):
    return {name: kind for name, kind in schema.names_and_types() if name != TIME}


@pytest.mark.parametrize(
    ("stored", "arriving", "widest"),
    [
        ("NULL", "BIGINT", "BIGINT"),
        ("BIGINT", "NULL", "BIGINT"),
        ("NULL", "NULL", "NULL"),
        ("BIGINT", "DOUBLE", "DOUBLE"),
        ("DOUBLE", "BIGINT", "DOUBLE"),
        ("VARCHAR", "VARCHAR", "VARCHAR"),
        ("VARCHAR", "BIGINT", None),
        ("BOOLEAN", "BIGINT", None),
        ("BLOB", "VARCHAR", None),
        ("DOUBLE", "BOOLEAN", None),
    ],
)
def test_widening(stored, arriving, widest):
    assert widen(stored, arriving) == widest


def test_widening_is_a_semilattice():
    """What makes the order of a replay indifferent."""

    def join(one, other):
        return one and other and widen(one, other)

    for a, b, c in itertools.product(KINDS, repeat=3):
        assert join(a, b) == join(b, a)
        assert join(join(a, b), c) == join(a, join(b, c))
        assert join(a, a) == a


BATCHES = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(KINDS)).map(lambda kinds: batch(**kinds)),
    max_size=5,
)


@given(BATCHES, st.randoms(use_true_random=False))
def test_order_of_the_batches_does_not_matter(batches, random):
    shuffled = random.sample(batches, len(batches))
    try:
        expected = types(grown(*batches))
    except Invalid:
        with pytest.raises(Invalid):
            grown(*shuffled)
    else:
        assert types(grown(*shuffled)) == expected
        assert types(TableSchema("db", "m").grown_by(batches)) == expected


def test_time_comes_first_then_columns_as_they_appeared():
    schema = grown(batch(b="BIGINT"), batch(c="VARCHAR", a="NULL"), batch(a="DOUBLE"))

    assert schema.names_and_types() == ((TIME, TIME_TYPE), ("b", "BIGINT"), ("c", "VARCHAR"), ("a", "DOUBLE"))


def test_first_spelling_stays():
    schema = grown(batch(Usage="BIGINT"))
    later = batch(USAGE="DOUBLE")

    schema = schema.grown_by([later])

    assert types(schema) == {"Usage": "DOUBLE"}
    assert schema.renames_of(later) == {"USAGE": "Usage"}
    assert schema.renames_of(batch(Usage="BIGINT")) == {}


def test_conflict_names_column_and_types_and_changes_nothing():
    schema = grown(batch(v="BIGINT"))

    with pytest.raises(Invalid) as caught:
        schema.grown_by([batch(new="BIGINT"), batch(V="VARCHAR")])

    assert str(caught.value) == 'column "v": cannot mix integer and text; db.m stores it as BIGINT'
    assert types(schema) == {"v": "BIGINT"}


def test_batch_that_was_never_checked_has_no_renames():
    schema = grown(batch(v="BIGINT"))

    assert schema.renames_of(batch(v="DOUBLE")) is None
    assert schema.renames_of(batch(w="BIGINT")) is None


def test_growing_leaves_the_schema_as_it_was():
    """A view holds it while others write."""
    schema = grown(batch(v="NULL"))

    schema.grown_by([batch(["w"], v="DOUBLE", w="VARCHAR")])

    assert (types(schema), schema.tags) == ({"v": "NULL"}, ())


def test_tags_are_remembered_once_and_in_the_spelling_of_their_column():
    schema = grown(batch(["host"], host="VARCHAR"), batch(["HOST", "dc"], HOST="VARCHAR", dc="VARCHAR"))

    assert schema.tags == ("host", "dc")
    assert schema.renames_of(batch(["HOST", "dc"], HOST="VARCHAR", dc="VARCHAR")) == {"HOST": "host"}


def test_column_that_becomes_a_tag_is_noticed():
    """The columns are known; that one is a tag now is not."""
    schema = grown(batch(dc="VARCHAR"))
    tagged = batch(["dc"], dc="VARCHAR")

    assert schema.renames_of(tagged) is None
    assert schema.grown_by([tagged]).tags == ("dc",)


def test_so_many_signatures_are_not_kept(monkeypatch):
    monkeypatch.setattr("arc.metrics.storage.schema._MAX_SIGNATURES", 3)
    schema = TableSchema("db", "m")

    for number in range(10):
        schema = schema.grown_by([batch(**{f"c{number}": "BIGINT"})])

    assert len(schema.renames) <= 3
    assert len(types(schema)) == 10


def test_rows_take_order_and_types_of_the_schema():
    schema = grown(batch(a="BIGINT", b="VARCHAR"), batch(c="NULL", a="DOUBLE"))

    table = rows_as_table(schema, [batch(b="VARCHAR", a="BIGINT").columns, batch(c="NULL", a="DOUBLE").columns])

    assert table.column_names == [TIME, "a", "b"]  # c has no type yet
    assert table.schema.types == [ARROW_TYPES[TIME_TYPE], pa.float64(), pa.string()]
    assert table.column("a").to_pylist() == [1.0, None, 0.5, None]
    assert table.column("b").to_pylist() == ["a", None, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_null_column_takes_the_type_it_gets_later(kind):
    schema = grown(batch(v="NULL"), batch(v=kind))

    table = rows_as_table(schema, [batch(v="NULL").columns, batch(v=kind).columns, batch().columns])

    expected = [None, None, *VALUES[kind].to_pylist(), None, None]
    assert (table.column("v").to_pylist() if kind != "NULL" else expected) == expected


def test_large_integers_may_round_as_doubles():
    schema = grown(batch(v="BIGINT"), batch(v="DOUBLE"))
    chunk = {TIME: TIMES, "v": pa.array([2**53 + 1, -(2**63)], pa.int64())}

    assert rows_as_table(schema, [chunk]).column("v").to_pylist() == [float(2**53), -(2.0**63)]


def test_column_is_widened_when_the_lake_has_it_narrower():
    schema = grown(batch(v="BIGINT", w="NULL"))
    schema.in_lake = schema.lake_types()
    assert schema.widened_then() == frozenset()

    schema = grown(batch(v="DOUBLE", w="DOUBLE"), schema=schema)

    assert schema.widened_then() == {"v"}
    schema.widened, schema.in_lake = schema.widened_then(), schema.lake_types()
    assert grown(batch(v="BIGINT"), schema=schema).widened_then() == {"v"}


def test_measurement_has_at_most_a_thousand_columns():
    full = grown(batch(**{f"c{number}": "BIGINT" for number in range(MAX_COLUMNS - 1)}))

    with pytest.raises(Invalid, match="more than 1000 columns"):
        grown(batch(one_more="BIGINT"), schema=full)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "NULL"])
def test_column_that_some_rows_lack_is_null_there(kind):
    with_it, without_it = batch(v=kind), batch(other="BIGINT")

    table = rows_as_table(grown(with_it, without_it), [with_it.columns, without_it.columns])

    table.validate(full=True)
    assert table.column("v").to_pylist() == [*VALUES[kind].to_pylist(), None, None]

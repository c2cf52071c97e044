"""Deleting by condition: what goes, what stays, and what is refused. The property test compares with a plain model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arc.errors import Denied, Invalid, NotFound
from tests.unit.rig import NOW, SECOND, Rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arc.metrics.upkeep.deletion import Removal


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path, **{"delete.enabled": "true", "compaction.hourly_min_files": "2"}) as opened:
        yield opened


@pytest.fixture(scope="module")
def ten_rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One for all tests that change nothing."""
    with Rig(tmp_path_factory.mktemp("ten"), **{"delete.enabled": "true"}) as opened:
        opened.write_files(1)
        yield opened


def delete(rig: Rig, where: str, measurement: str = "cpu") -> Removal:
    return rig.upkeep.deletion.delete("default", measurement, where, dry_run=False, confirm=True).removal


def preview(rig: Rig, where: str) -> Removal:
    return rig.upkeep.deletion.delete("default", "cpu", where, dry_run=True, confirm=False).removal


def test_a_dry_run_tells_what_the_execution_does(rig: Rig) -> None:
    rig.write_files(3)
    first, second, _ = [found.name for found in rig.files()]

    planned = preview(rig, "n < 15")

    assert (planned.rows, planned.dropped, planned.reduced) == (15, (first,), (second,))
    assert rig.query("SELECT count(*) FROM cpu") == [(30,)]
    assert delete(rig, "n < 15") == planned
    assert rig.query("SELECT count(*), min(n) FROM cpu") == [(15, 15)]
    assert len(rig.files()) == 2
    assert preview(rig, "n < 15").rows == 0


def test_rows_for_which_the_condition_is_null_stay(rig: Rig) -> None:
    rig.write(time=[NOW, NOW + 1, NOW + 2], host=["a", None, "b"], n=[1, 2, None])

    assert delete(rig, "host <> 'b'").rows == 1
    assert rig.query("SELECT host, n FROM cpu ORDER BY time") == [(None, 2), ("b", None)]
    assert delete(rig, "n + 1 > 0 OR n IS NULL").rows == 2


def test_buffered_rows_go_too(rig: Rig) -> None:
    rig.write_files(1)
    rig.write(time=[NOW + 1, NOW + 2], host=["h0", "other"], n=[100, 101])

    assert delete(rig, "host = 'h0'").rows == 5
    assert rig.query("SELECT count(*) FROM cpu") == [(7,)]


def test_a_column_is_what_queries_see_there(rig: Rig) -> None:
    rig.write(time=[NOW], n=[1], nothing=[None])
    rig.store.flush()
    rig.write(time=[NOW + 1], n=[0.5])

    assert rig.query("SELECT count(*) FROM cpu WHERE n > 0.7") == [(1,)]
    assert delete(rig, "nothing = 'x'").rows == 0
    assert delete(rig, 'N > 0.7 AND "nothing" IS NULL').rows == 1
    assert rig.query("SELECT n FROM cpu") == [(0.5,)]


def test_a_delete_of_everything_wants_to_be_meant(rig: Rig) -> None:
    rig.write_files(2)
    deletion = rig.upkeep.deletion

    for where in ("1=1", "true", "1 < 2"):
        with pytest.raises(Invalid, match="Full table delete detected"):
            deletion.delete("default", "cpu", where, dry_run=True, confirm=False)
    assert deletion.delete("default", "cpu", "1=1", dry_run=True, confirm=True).removal.rows == 20
    assert deletion.delete("default", "cpu", "1=1", dry_run=False, confirm=True).removal.rows == 20
    assert rig.query("SELECT count(*) FROM cpu") == [(0,)]
    rig.write_files(1)
    assert rig.query("SELECT count(*) FROM cpu") == [(10,)]


def test_every_execution_needs_confirmation_and_a_large_one_says_how_large(tmp_path: Path) -> None:
    options = {"delete.enabled": "true", "delete.confirmation_threshold": "5", "delete.max_rows_per_delete": "15"}
    with Rig(tmp_path, **options) as rig:
        rig.write_files(2)
        deletion = rig.upkeep.deletion

        with pytest.raises(Invalid, match="Confirmation required for delete operation"):
            deletion.delete("default", "cpu", "n < 5", dry_run=False, confirm=False)
        with pytest.raises(Invalid, match=r"would affect 10 rows \(threshold: 5\)"):
            deletion.delete("default", "cpu", "n < 10", dry_run=False, confirm=False)
        for dry_run in (True, False):
            with pytest.raises(Invalid, match="would affect 16 rows, exceeding maximum of 15"):
                deletion.delete("default", "cpu", "n < 16", dry_run=dry_run, confirm=True)
        assert rig.query("SELECT count(*) FROM cpu") == [(20,)]


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ("n IN (SELECT 1)", "without sub-queries"),
        ("EXISTS (FROM mem)", "without sub-queries"),
        ("n = 1; DROP TABLE cpu", "Multiple SQL statements"),
        ("n = 1 -- all of it", "Comments are not allowed"),
        ("n = 1 /* or not */", "Comments are not allowed"),
        ("n = 1) OR (1 = 1", "Parser Error"),
        ("n = 1 UNION SELECT 2", "without sub-queries"),
        ("n = 1 ORDER BY 1", "without sub-queries"),
        ("n = 1, n = 2", "without sub-queries"),
        ("n AS m", "one condition"),
        ("read_text('/etc/passwd') = 'x'", "File I/O function"),
        ("getenv('HOME') = 'x'", "not allowed"),
        ("rowid = 1", "no column rowid"),
        ("_query = 'x'", "no column _query"),
        ("mem.n = 1", "no column mem.n"),
        ("nobody = 1", "no column nobody"),
        ("count(*) > 1", "aggregate"),
        ("n = 'text'", "Conversion Error"),
        ("?", "prepared parameters"),
        ("", "Parser Error"),
    ],
)
def test_what_is_no_condition_on_the_rows_is_refused(ten_rows: Rig, where: str, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        ten_rows.upkeep.deletion.delete("default", "cpu", where, dry_run=False, confirm=True)
    assert ten_rows.query("SELECT count(*) FROM cpu") == [(10,)]


def test_a_text_may_look_like_a_comment(rig: Rig) -> None:
    rig.write(time=[NOW, NOW + 1], host=["--x", "a"])

    assert delete(rig, "host = '--x'").rows == 1


def test_unknown_measurements_and_bad_names_are_refused(rig: Rig) -> None:
    with pytest.raises(NotFound, match=r"no measurement default\.cpu"):
        delete(rig, "n = 1")
    with pytest.raises(Invalid, match="invalid measurement name"):
        delete(rig, "n = 1", measurement="../x")


def test_deletes_are_off_unless_switched_on(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, pytest.raises(Denied, match="Delete operations are disabled"):
        rig.upkeep.deletion.delete("default", "cpu", "n = 1", dry_run=True, confirm=False)


# A row is (seconds, host, n); conditions come in pairs: SQL, and what it means for a row, where None is SQL's null.
Row = tuple[int, str | None, int | None]
_HOSTS = st.sampled_from(["a", "b", None])
_NUMBERS = st.one_of(st.none(), st.integers(-3, 3))
_ROWS = st.lists(st.tuples(st.integers(0, 20), _HOSTS, _NUMBERS), max_size=12)


def _compare(column: int, sign: str, value: Any) -> Any:
    def holds(row: Row) -> bool | None:
        found = row[column]
        if found is None:
            return None
        return {"=": found == value, "<>": found != value, "<": found < value, ">=": found >= value}[sign]

    return holds


_SIGNS = st.sampled_from(["=", "<>", "<", ">="])
_ATOMS = st.one_of(
    st.builds(lambda sign, n: (f"n {sign} {n}", _compare(2, sign, n)), _SIGNS, st.integers(-3, 3)),
    st.builds(lambda sign, host: (f"host {sign} '{host}'", _compare(1, sign, host)), _SIGNS, st.sampled_from("ab")),
    st.builds(
        lambda sign, s: (f"time {sign} make_timestamptz({NOW + s * SECOND})", _compare(0, sign, s)),
        _SIGNS,
        st.integers(0, 20),
    ),
    st.just(("host IS NULL", lambda row: row[1] is None)),
    st.just(("n IS NOT NULL", lambda row: row[2] is not None)),
)


def _both(one: Any, other: Any) -> Any:
    def holds(row: Row) -> bool | None:
        found = (one[1](row), other[1](row))
        return False if False in found else None if None in found else True

    return f"({one[0]}) AND ({other[0]})", holds


def _either(one: Any, other: Any) -> Any:
    def holds(row: Row) -> bool | None:
        found = (one[1](row), other[1](row))
        return True if True in found else None if None in found else False

    return f"({one[0]}) OR ({other[0]})", holds


def _not(one: Any) -> Any:
    return f"NOT ({one[0]})", lambda row: None if (found := one[1](row)) is None else not found


_CONDITIONS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(st.builds(_both, inner, inner), st.builds(_either, inner, inner), st.builds(_not, inner)),
    max_leaves=5,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(_ROWS, min_size=1, max_size=4),
    conditions=st.lists(_CONDITIONS, min_size=1, max_size=3),
    data=st.data(),
)
def test_exactly_the_rows_go_for_which_the_condition_is_true(
    rig: Rig, files: list[list[Row]], conditions: list[Any], data: st.DataObject
) -> None:
    model: list[Row] = []
    rig.write(time=[NOW], host=["z"], n=[9])  # so that the measurement and its columns are there
    delete(rig, "n IS NULL OR n IS NOT NULL")

    def check() -> None:
        found = rig.query("SELECT epoch_us(time), host, n FROM cpu")
        assert sorted(found, key=str) == sorted(((NOW + s * SECOND, host, n) for s, host, n in model), key=str)

    for rows in files:
        if rows:
            rig.write(time=[NOW + r[0] * SECOND for r in rows], host=[r[1] for r in rows], n=[r[2] for r in rows])
            model += rows
        if data.draw(st.booleans(), label="flush"):
            rig.store.flush()
    for where, holds in conditions:
        doomed = [row for row in model if holds(row)]
        model = [row for row in model if not holds(row)]
        assert delete(rig, where).rows == len(doomed)
        check()
        if data.draw(st.booleans(), label="compact"):
            rig.compact()
            check()

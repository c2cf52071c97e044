"""Named definitions in the metadata database (policies, continuous queries) and the history of what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import Row, delete, insert, select, update

from arc.errors import Invalid, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection, Table

    from arc.db.engine import Database

D = TypeVar("D")
E = TypeVar("E")


class Definitions(Generic[D, E]):
    """One table of definitions and one of their executions. Any thread may call it; each method is one transaction.

    table: has `id`, `name`, `created_at`, `updated_at`. history: its column `owner` names the definition.
    kind, executed: dataclasses with a field for each column. editable: columns that a caller may set.
    check: raises Invalid for values that do not suit each other.
    """

    def __init__(
        self,
        db: Database,
        noun: str,
        table: Table,
        history: Table,
        owner: str,
        kind: type[D],
        executed: type[E],
        editable: tuple[str, ...],
        check: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._db = db
        self._noun = noun
        self._table = table
        self._history = history
        self._owner = history.c[owner]
        self._kind = kind
        self._executed = executed
        self._editable = editable
        self._check = check

    def create(self, now_us: int, **values: Any) -> D:
        """Raises Invalid, also when the name is taken."""
        self._check(values)
        with self._db.transaction() as tx:
            self._refuse_taken_name(tx, values["name"], but=0)
            row = insert(self._table).values(**values, created_at=now_us, updated_at=now_us)
            return self._get(tx, tx.execute(row.returning(self._table.c.id)).scalar_one())

    def all(self) -> list[D]:
        with self._db.read() as connection:
            rows = connection.execute(select(self._table).order_by(self._table.c.id))
            return [self._kind(**row._mapping) for row in rows]

    def get(self, number: int) -> D:
        """Raises NotFound."""
        with self._db.read() as connection:
            return self._get(connection, number)

    def update(self, number: int, now_us: int, **changes: Any) -> D:
        """Change what is named; everything else stays, and the whole must be valid."""
        with self._db.transaction() as tx:
            current = self._get(tx, number)
            merged = {name: getattr(current, name) for name in self._editable} | changes
            self._check(merged)
            self._refuse_taken_name(tx, merged["name"], but=number)
            tx.execute(update(self._table).where(self._table.c.id == number).values(**merged, updated_at=now_us))
            return self._get(tx, number)

    def delete(self, number: int) -> None:
        """The definition and its history. Raises NotFound."""
        with self._db.transaction() as tx:
            if not tx.execute(delete(self._table).where(self._table.c.id == number)).rowcount:
                raise NotFound(f"{self._noun} not found")

    def record(self, number: int, changes: Mapping[str, Any], **execution: Any) -> None:
        """Add to the history and, in the same transaction, change the definition."""
        with self._db.transaction() as tx:
            changed = tx.execute(update(self._table).where(self._table.c.id == number).values(**changes))
            if changed.rowcount:  # it may have been deleted meanwhile
                tx.execute(insert(self._history).values({self._owner.name: number, **execution}))

    def executions(self, number: int, limit: int) -> list[E]:
        """Newest first. Raises NotFound for an unknown definition."""
        with self._db.read() as connection:
            self._get(connection, number)
            mine = select(self._history).where(self._owner == number)
            rows = connection.execute(mine.order_by(self._history.c.id.desc()).limit(limit))
            return [self._executed(**row._mapping) for row in rows]

    def forget(self, before_us: int) -> int:
        """Drop executions that began before an instant."""
        with self._db.transaction() as tx:
            return tx.execute(delete(self._history).where(self._history.c.executed_at < before_us)).rowcount

    def _get(self, connection: Connection, number: int) -> D:
        row: Row[Any] | None = connection.execute(select(self._table).where(self._table.c.id == number)).one_or_none()
        if row is None:
            raise NotFound(f"{self._noun} not found")
        return self._kind(**row._mapping)

    def _refuse_taken_name(self, tx: Connection, name: str, but: int) -> None:
        taken = select(self._table.c.id).where(self._table.c.name == name, self._table.c.id != but)
        if tx.execute(taken).first():
            raise Invalid(f"{self._noun} with name {name!r} already exists")

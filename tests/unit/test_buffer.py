"""The write buffer shows every row from its arrival until the lake has it, also while a flush works."""

from __future__ import annotations

import pyarrow as pa
import pytest

from arc.metrics.decode.batch import Batch
from arc.metrics.storage import buffer as buffer_module
from arc.metrics.storage.buffer import WriteBuffer

CPU, MEM = ("db", "cpu"), ("db", "mem")


def add(buffer, key, *values, at_us=100):
    columns = {"time": pa.array(values, pa.timestamp("us", "UTC"))}
    buffer.add(key, Batch(key[1], columns, len(values)), 10 * len(values), at_us)


def values(buffer, key):
    return [each.value for chunk in buffer.chunks(key) for each in chunk["time"]]


def state(buffer):
    return {"rows": buffer.rows, "bytes": buffer.size_bytes, "active": buffer.active_rows, "oldest": buffer.oldest_us}


@pytest.fixture
def buffer():
    return WriteBuffer()


def test_rows_are_there_in_the_order_of_their_arrival(buffer):
    add(buffer, CPU, 1, 2)
    add(buffer, MEM, 7)
    add(buffer, CPU, 3, at_us=200)

    assert values(buffer, CPU) == [1, 2, 3]
    assert values(buffer, ("db", "unknown")) == []
    assert buffer.sizes() == {CPU: 3, MEM: 1}
    assert state(buffer) == {"rows": 4, "bytes": 40, "active": 4, "oldest": 100}


def test_frozen_rows_stay_visible_beside_new_ones(buffer):
    add(buffer, CPU, 1)

    frozen = buffer.freeze()
    add(buffer, CPU, 2, at_us=300)

    assert {key: rows.rows for key, rows in frozen.items()} == {CPU: 1}
    assert values(buffer, CPU) == [1, 2]
    assert buffer.sizes() == {CPU: 2}
    assert state(buffer) == {"rows": 2, "bytes": 20, "active": 1, "oldest": 300}


def test_dropped_are_only_the_frozen_rows(buffer):
    add(buffer, CPU, 1)
    add(buffer, MEM, 9)
    buffer.freeze()
    add(buffer, CPU, 2, at_us=300)

    buffer.drop()

    assert values(buffer, CPU) == [2]
    assert buffer.sizes() == {CPU: 1}
    assert state(buffer) == {"rows": 1, "bytes": 10, "active": 1, "oldest": 300}


def test_thawed_rows_wait_again_before_the_later_ones(buffer):
    add(buffer, CPU, 1)
    buffer.freeze()
    add(buffer, CPU, 2, at_us=300)
    add(buffer, MEM, 9, at_us=300)

    buffer.thaw()

    assert values(buffer, CPU) == [1, 2]
    assert values(buffer, MEM) == [9]
    assert state(buffer) == {"rows": 3, "bytes": 30, "active": 3, "oldest": 100}
    frozen = buffer.freeze()
    assert {key: (rows.rows, rows.size_bytes) for key, rows in frozen.items()} == {CPU: (2, 20), MEM: (1, 10)}


def test_nothing_frozen_nothing_changes(buffer):
    assert buffer.freeze() == {}
    add(buffer, CPU, 1)

    buffer.thaw()

    assert values(buffer, CPU) == [1]
    assert state(buffer) == {"rows": 1, "bytes": 10, "active": 1, "oldest": 100}


def test_after_everything_is_dropped_nothing_is_old(buffer):
    add(buffer, CPU, 1)
    buffer.freeze()

    buffer.drop()

    assert state(buffer) == {"rows": 0, "bytes": 0, "active": 0, "oldest": None}


class TestReplace:
    """A reader's merged copy takes the place of the many chunks it was made of."""

    MANY = buffer_module._MERGE_FROM

    @pytest.fixture
    def buffer(self):
        buffer = WriteBuffer()
        for value in range(self.MANY):
            add(buffer, CPU, value)
        return buffer

    @staticmethod
    def merged(chunks):
        return {"time": pa.concat_arrays([chunk["time"] for chunk in chunks])}

    def test_many_chunks_become_one(self, buffer):
        seen = buffer.chunks(CPU)
        add(buffer, CPU, 1000)
        before = state(buffer)

        buffer.replace(CPU, seen, self.merged(seen))

        assert len(buffer.chunks(CPU)) == 2
        assert values(buffer, CPU) == [*range(self.MANY), 1000]
        assert state(buffer) == before

    def test_few_chunks_are_not_worth_it(self, buffer):
        seen = buffer.chunks(CPU)[:-1]

        buffer.replace(CPU, seen, self.merged(seen))

        assert len(buffer.chunks(CPU)) == self.MANY

    def test_frozen_chunks_are_the_flushs(self, buffer):
        seen = buffer.chunks(CPU)
        buffer.freeze()

        buffer.replace(CPU, seen, self.merged(seen))

        assert len(buffer.chunks(CPU)) == self.MANY

    def test_flushed_chunks_do_not_come_back(self, buffer):
        seen = buffer.chunks(CPU)
        buffer.freeze()
        buffer.drop()
        for value in range(self.MANY):
            add(buffer, CPU, value + 1000)

        buffer.replace(CPU, seen, self.merged(seen))

        assert values(buffer, CPU) == [value + 1000 for value in range(self.MANY)]

    def test_two_readers_may_merge_the_same_chunks(self, buffer):
        first, second = buffer.chunks(CPU), buffer.chunks(CPU)

        buffer.replace(CPU, first, self.merged(first))
        buffer.replace(CPU, second, self.merged(second))

        assert values(buffer, CPU) == [*range(self.MANY)]

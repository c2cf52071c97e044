"""The cache of answers: what is kept, for how long, and what ends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from arc.metrics.decode.msgpackpoints import decode_msgpack
from arc.metrics.query.cache import BYPASS, HIT, MISS, Answer, CacheOptions, CacheSweeper, Fetched, Key, ResultCache
from arc.metrics.query.guard import Plan
from arc.metrics.query.sqltext import Listing
from arc.metrics.store import MetricStore, StoreOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CPU = Plan(tables=(("default", "cpu"),))


@dataclass
class World:
    """A cache with its own clock, over measurements whose rows change when a test says so."""

    options: CacheOptions = field(default_factory=CacheOptions)
    now_s: float = 100.0
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = ResultCache(self.options, lambda: self.now_s)

    def stamps(self, wanted: Iterable[tuple[str, str]]) -> tuple[int, ...]:
        return tuple(self.versions.get(table, 0) for table in wanted)

    def write(self, *table: str) -> None:
        key = (table[0], table[1])
        self.versions[key] = self.versions.get(key, 0) + 1

    def fetch(self, sql: str = "SELECT 1", plan: Plan | None = CPU, size: int = 10, **key: Any) -> Fetched:
        def ask() -> Answer:
            self.asked.append(sql)
            return Answer(str(len(self.asked)), ["n"], ["BIGINT"], b"x" * size, 1, 1.0, 0.0, 0.0)

        return self.cache.fetch(Key(sql, key.get("database", "default"), key.get("reader", ())), plan, self.stamps, ask)


@pytest.fixture
def world() -> World:
    return World()


def test_same_query_is_asked_once(world: World) -> None:
    first, second = world.fetch(), world.fetch()

    assert (first.state, second.state, second.answer) == (MISS, HIT, first.answer)
    assert len(world.asked) == 1


def test_age_is_that_of_the_answer(world: World) -> None:
    world.fetch()
    world.now_s += 12

    assert world.fetch().age_s == 12


@pytest.mark.parametrize("other", [{"database": "b"}, {"reader": ("o", "p")}, {"sql": "select 1"}])
def test_other_text_database_or_reader_is_another_query(world: World, other: dict[str, Any]) -> None:
    world.fetch()

    assert world.fetch(**other).state == MISS


def test_change_of_any_measurement_read_ends_an_answer(world: World) -> None:
    joined = Plan(tables=(("default", "cpu"), ("other", "mem")))
    world.fetch(plan=joined)
    world.write("other", "mem")

    assert world.fetch(plan=joined).state == MISS


def test_change_elsewhere_leaves_it(world: World) -> None:
    world.fetch()
    world.write("default", "mem")

    assert world.fetch().state == HIT


def test_rows_that_come_while_a_query_runs_end_its_answer(world: World) -> None:
    def ask() -> Answer:
        world.write("default", "cpu")
        return Answer("1", [], [], b"[]", 0, 0.0, 0.0, 0.0)

    world.cache.fetch(Key("SELECT 1", "default"), CPU, world.stamps, ask)

    assert world.fetch().state == MISS


def test_answer_ends_with_its_time(world: World) -> None:
    world.fetch()
    world.now_s += world.options.ttl_s

    assert world.fetch().state == MISS


@pytest.mark.parametrize(
    "plan", [None, Plan(listing=Listing("databases")), Plan(explain="EXPLAIN"), Plan(is_volatile=True)]
)
def test_what_changes_by_itself_is_not_kept(world: World, plan: Plan | None) -> None:
    assert [world.fetch(plan=plan).state for _ in range(2)] == [BYPASS, BYPASS]
    assert world.cache.stats()["current_size"] == 0


def test_disabled_cache_keeps_nothing() -> None:
    world = World(CacheOptions(enabled=False))

    assert [world.fetch().state for _ in range(2)] == [BYPASS, BYPASS]


def test_failed_query_is_not_kept(world: World) -> None:
    def fail() -> Answer:
        raise ValueError

    with pytest.raises(ValueError):
        world.cache.fetch(Key("SELECT 1", "default"), CPU, world.stamps, fail)

    assert world.fetch().state == MISS


def test_least_recently_asked_goes_first() -> None:
    world = World(CacheOptions(max_entries=2))
    for sql in ("a", "b", "a", "c"):
        world.fetch(sql)

    assert [world.fetch(sql).state for sql in ("a", "c", "b")] == [HIT, HIT, MISS]
    assert world.cache.stats()["metrics"]["evictions"] == 2


def test_sizes_are_limited() -> None:
    world = World(CacheOptions(max_result_bytes=100, max_total_bytes=150))
    world.fetch("large", size=101)
    world.fetch("a", size=80)
    world.fetch("b", size=80)

    stats = world.cache.stats()
    assert (stats["current_size"], stats["current_size_bytes"]) == (1, 80)
    assert [world.fetch(sql, size=80).state for sql in ("b", "a")] == [HIT, MISS]


def test_sweeper_gives_back_what_is_old(world: World) -> None:
    world.fetch()
    sweeper = CacheSweeper(world.cache)

    early = sweeper.step(now_us=0)
    world.now_s += world.options.ttl_s

    assert (early, sweeper.step(now_us=0)) == (0, 1)
    assert world.cache.stats()["current_size_bytes"] == 0


def test_stats_and_clear(world: World) -> None:
    for sql in ("a", "a", "b"):
        world.fetch(sql)
    stats = world.cache.stats()

    assert stats["metrics"] == {
        "total_requests": 3, "hits": 1, "misses": 2, "hit_rate_percent": 33.3, "evictions": 0, "expirations": 0,
    }  # fmt: skip
    assert [entry["key_hash"] for entry in stats["entries"]] == [Key(sql, "default").hash for sql in ("b", "a")]
    assert (world.cache.clear(), world.cache.clear()) == (2, 0)


def test_cache_says_what_is_amiss() -> None:
    world = World(CacheOptions(max_entries=1))
    for number in range(120):
        world.fetch(str(number))

    low, evictions = world.cache.warnings()

    assert low.startswith("Low hit rate")
    assert evictions.startswith("Many evictions")


# ---------------------------------------------------------------------------------------------- the store's stamps


CPU_AND_MEM = (("default", "cpu"), ("default", "mem"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MetricStore]:
    store = MetricStore(tmp_path, StoreOptions(buffer_age_s=3600.0, threads=1))
    store.start()
    yield store
    store.close()


def stamps(store: MetricStore) -> list[tuple[int, ...]]:
    return [store.stamps([table]) for table in CPU_AND_MEM]


def write(store: MetricStore, measurement: str) -> None:
    store.write_msgpack(
        msgpack.packb({"m": measurement, "columns": {"time": [1_700_000_000_000], "v": [1]}}), "default"
    )


def test_write_changes_the_stamps_of_its_measurement(store: MetricStore) -> None:
    cpu, mem = stamps(store)
    write(store, "CPU")

    assert stamps(store)[0] != cpu
    assert stamps(store)[1] == mem


def test_flush_changes_no_stamps(store: MetricStore) -> None:
    write(store, "cpu")
    before = stamps(store)
    store.flush()

    assert stamps(store) == before


def test_replaced_rows_change_the_stamps_of_their_measurement(store: MetricStore) -> None:
    cpu, mem = stamps(store)
    [batch] = decode_msgpack(msgpack.packb({"m": "cpu", "columns": {"time": [1_700_000_000_000], "v": [1]}}), 0)
    store.replace_rows("default", batch, "false")

    assert stamps(store)[0] != cpu
    assert stamps(store)[1] == mem


def test_upkeep_changes_the_stamps_of_what_it_names_and_a_drop_all(store: MetricStore) -> None:
    write(store, "cpu")
    first = stamps(store)
    with store.upkeep():  # compaction changes no row
        pass
    assert stamps(store) == first
    with store.upkeep(("Default", "CPU")):
        pass
    second = stamps(store)
    store.drop_database("default")
    third = stamps(store)

    assert (second[0] != first[0], second[1] == first[1]) == (True, True)
    assert third[0] != second[0]

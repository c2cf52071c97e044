"""The filter language against the examples of its specification, on real SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from arc.db.engine import Database
from arc.db.fleet_tables import agent_facts, agent_tags, agents
from arc.db.tables import metadata
from arc.errors import Invalid
from arc.fleet import filter as language
from arc.fleet.values import number_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

LINUX = {"os": "linux"}
DEBIAN = LINUX | {"platform": "ubuntu", "platform_family": "debian"}
PLUGINS = {"rpc": "enabled", "chef": "disabled", "execute": "enabled"}
FACTS: dict[str, dict[str, Any]] = {
    "a1": DEBIAN
    | {
        "platform_version": "22.04",
        "hostname": "edge-01",
        "online": True,
        "memory_used_percent": 40,
        "agents": PLUGINS,
    },
    "a2": LINUX
    | {"platform": "redhat", "platform_family": "rhel", "platform_version": "8.9", "hostname": "edge-02"}
    | {"online": False, "memory_used_percent": 91},
    "a3": DEBIAN
    | {"platform_version": "20.04", "hostname": "store_1", "domain": "lab.example"}
    | {"online": True, "memory_used_percent": 75},
    "a4": {"platform": "windows", "platform_family": "windows", "platform_version": "10.0.17763", "hostname": "hmi-01"}
    | {"online": True, "memory_used_percent": 55},
    "a5": {"os": "darwin", "platform": "mac_os_x", "hostname": "dev-mac", "fqdn": None, "online": False}
    | {"memory_used_percent": 33},
    "a6": {"online": True},
}
TAGS = {
    "a1": {"name": "Press hall gateway", "site": "north", "line": "7", "pool": "green"},
    "a2": {"site": "south", "line": "12", "pool": "green"},
    "a3": {"site": "north", "pool": "blue"},
    "a4": {"site": "south", "owner": "O'Neil", "note": "50% spare_part"},
    "a6": {"slot": "seven"},
}
MATCHES = [
    ('@os = "linux"', "a1 a2 a3"),
    ("'linux'=@os", "a1 a2 a3"),
    ('@os != "linux"', "a5"),
    ('NOT @os = "linux"', "a5"),
    ('@os = "Linux"', ""),
    ('os = "linux"', ""),
    ('site = "north"', "a1 a3"),
    ('@site = "north"', ""),
    ('name = "Press hall gateway"', "a1"),
    ('@hostname ^ "edge*"', "a1 a2"),
    ('@hostname ^ "Edge*"', ""),
    ('@hostname ^ "edge"', ""),
    ('@hostname ^ "*-0+"', "a1 a2 a4"),
    ('@hostname ^ "store_1"', "a3"),
    ('@hostname ^ "edge_01"', "a1"),
    ('@hostname ^ "%-01"', "a1 a4"),
    ('"edge*" ^ @hostname', "a1 a2"),
    ('@hostname !^ "edge*"', "a3 a4 a5"),
    ('@domain !^ "edge*"', "a3"),
    ('line ^ "*"', "a1 a2"),
    ('NOT line ^ "*"', ""),
    ("line = 7", "a1"),
    ('line = "7"', "a1"),
    ("line = 07", "a1"),
    ("7 = line", "a1"),
    ("line != 7", "a2"),
    ("@memory_used_percent = 91", "a2"),
    ('@memory_used_percent ^ "+1"', "a2"),
    ('@online = "true"', "a1 a3 a4 a6"),
    ('@online = "false"', "a2 a5"),
    ('@online != "true" AND @os = "linux"', "a2"),
    ('@os = "linux" OR @os = "darwin" AND @online = "true"', "a1 a2 a3"),
    ('(@os = "linux" OR @os = "darwin") AND @online = "true"', "a1 a3"),
    ('site = "north" AND NOT pool = "blue"', "a1"),
    ('NOT (@os = "linux" AND pool = "green")', "a3 a5"),
    ('NOT @os = "linux" OR pool = "green"', "a1 a2 a5"),
    ('NOT NOT site = "south"', "a2 a4"),
    ('@os = "linux"AND site = "north"', "a1 a3"),
    ('@platform_family = "rhel" OR @platform_family = "debian" AND site = "north"', "a1 a2 a3"),
    (r'note ^ "50\% *"', "a4"),
    ('note ^ "*spare+part"', "a4"),
    (r'note ^ "*\*"', ""),
    ("""@agents ^ '*"rpc": "enabled"*'""", "a1"),
    (r'@agents ^ "*\"rpc\": \"enabled\"*"', "a1"),
    ('@fqdn = "x"', ""),
    ('NOT @fqdn = "x"', ""),
    ('@no_such != "x"', ""),
    ('a-b != "x" OR site = "south"', "a2 a4"),
    ('-5 = "x"', ""),
    ('ANDROID = "x"', ""),
    ('owner = "O\'Neil"', "a4"),
    ("slot = 7", ""),
    ("@online = 1", ""),
    ("""note ^ "x\\" OR site = 'south'""", "a2 a4"),
    (r'@hostname ^ "edge\-01"', "a1"),
    (r'@hostname ^ "edge\_01"', ""),
    (r'@hostname ^ "store\+1"', "a3"),
    ("NOT line = 7 AND NOT line = 12", ""),
    ('(site = "north" OR site = "south") AND NOT (@platform ^ "win*")', "a1 a2 a3"),
    ('site = "x\'; DROP TABLE agents; --"', ""),
]
REFUSALS = [
    ("@online = true", 10),
    ("@memory_used_percent = 91.0", 25),
    ("@memory_used_percent > 50", 21),
    ("@memory_used_percent = -1", 23),
    ('@os = "linux" and site = "north"', 14),
    ('@os = "linux" site = "north"', 14),
    ('@os = ""', 6),
    ('@os == "linux"', 5),
    ("@os", 0),
    ('(@os = "linux"', 0),
    ('@agents.rpc = "enabled"', 7),
    ("@os = @platform", 6),
    ('@ os = "linux"', 0),
    ('1a = "x"', 1),
    ("5 ^ @os", 2),
    (" ", 0),
    ('note ^ "x\\" OR site = "south"', 23),
    ("()", 1),
    ("NOT AND", 4),
    ('@os = "linux")', 13),
    ('@os = "linux"\n)', 0),
    ('@os = "linux"\r', 13),
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    db = Database(f"sqlite:///{tmp_path_factory.mktemp('fleet')}/arc.db")
    with db.transaction() as connection:
        metadata.create_all(connection, tables=[agents, agent_facts, agent_tags])
        for agent_id, facts in FACTS.items():
            _store(connection, agent_id, facts, TAGS.get(agent_id, {}))
    yield db
    db.close()


def _store(connection: sa.Connection, agent_id: str, facts: dict[str, Any], tags: dict[str, str]) -> None:
    blank = {"project": "", "organization": "", "facts": "{}", "updated_with": "", "updated_by": "", "epoch": ""}
    times = {"last_seen_at": 0, "created_at": 0, "updated_at": 0, "last_seq": 0}
    connection.execute(
        agents.insert().values(agent_id=agent_id, display_name=agent_id, is_online=True, **blank, **times)
    )
    for table, values in ((agent_facts, facts), (agent_tags, tags)):
        for name, value in values.items():
            if (text := text_of(value)) is not None:
                row = {"agent_id": agent_id, "name": name, "text": text, "number": number_of(text)}
                connection.execute(table.insert().values(row))


def _matching(db: Database, q: str) -> str:
    query = sa.select(agents.c.agent_id).where(language.parse(q)).order_by(agents.c.agent_id)
    with db.read() as connection:
        return " ".join(connection.scalars(query))


@pytest.mark.parametrize(("q", "expected"), MATCHES)
def test_filter_finds_the_agents_for_which_it_is_true(fleet: Database, q: str, expected: str) -> None:
    assert _matching(fleet, q) == expected


@pytest.mark.parametrize(("q", "column"), REFUSALS)
def test_error_names_the_column_of_what_does_not_fit(q: str, column: int) -> None:
    with pytest.raises(language.FilterError, match=f"syntax error. Column: {column}$"):
        language.parse(q)


def test_backslash_at_the_end_of_a_pattern_is_literal() -> None:
    assert language.like_pattern("a\\") == "a\\\\"


@pytest.mark.parametrize("q", ["x" * 5000, " OR ".join(["a = 1"] * 201)])
def test_huge_filter_is_refused(q: str) -> None:
    with pytest.raises(Invalid, match="the filter"):
        language.parse(q)


def test_long_filter_runs(fleet: Database) -> None:
    assert _matching(fleet, "NOT " * 400 + "line = 7") == "a1"
    assert _matching(fleet, " AND ".join(["NOT line = 9"] * 200)) == "a1 a2"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (91, "91"),
        (1.5, "1.5"),
        (91.0, "91"),
        (1e21, "1000000000000000000000"),
        (1e-7, "0.0000001"),
        (True, "true"),
        (None, None),
        ({"execute": 1, "rpc": [True, None]}, '{"rpc": [true, null], "execute": 1}'),
    ],
)
def test_text_of_a_value(value: Any, text: str | None) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize(
    ("text", "number"), [("007", 7), (" 7.0 ", 7), ("1e2", 100), ("seven", None), ("", None), ("10.0.1", None)]
)
def test_number_of_a_text(text: str, number: float | None) -> None:
    assert number_of(text) == number

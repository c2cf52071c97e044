"""Agents: registrations merged into facts, tags, who is online, and the history of it.

transport -> Intake -> register | reply ... -> one transaction with the number of the last message
Facts are kept twice: as the JSON they came as, and as texts and numbers for the filter language (values.py).
Source: the remote agents specification, sections 4 and 6.6.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import bindparam, delete, insert, select, update

from arc.db.fleet_tables import agent_events, agent_facts, agent_tags, agents
from arc.errors import Invalid
from arc.fleet import filter as language
from arc.fleet.records import Agent, AgentEvent, AgentNotFound, Known, OtherProject, Page
from arc.fleet.values import number_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arc.db.engine import Database
    from arc.fleet.messages import Registration

MAX_FACTS = 1000  # of one agent
MAX_TAGS, MAX_TAG_KEY, MAX_TAG_VALUE = 64, 128, 1000  # of one agent; characters
REPEAT_US = 60_000_000  # a registration with the id of the last one counts once within this time
_TAG_KEY = re.compile(r"[A-Za-z0-9_]+", re.ASCII)

_BY_ID = select(agents).where(agents.c.agent_id == bindparam("agent"))
_TAGS = select(agent_tags.c.agent_id, agent_tags.c.name, agent_tags.c.text)
_UPDATE = update(agents).where(agents.c.agent_id == bindparam("agent"))  # sets what it is executed with
# One row at a time: an IN of changing length would cost more to write than to run.
_ROW = {
    table: (table.c.agent_id == bindparam("agent"), table.c.name == bindparam("key"))
    for table in (agent_facts, agent_tags)
}
_PUT_IN = {table: insert(table) for table in _ROW}
_TAKE_OUT = {table: delete(table).where(*row) for table, row in _ROW.items()}
_CHANGE = {
    table: update(table).where(*row).values(text=bindparam("to"), number=bindparam("as_number"))
    for table, row in _ROW.items()
}
_ADD_EVENT = insert(agent_events)
_KNOWN = select(agents.c.token_id, agents.c.epoch, agents.c.last_seq).where(agents.c.agent_id == bindparam("agent"))
_SEEN = (
    update(agents)
    .where(agents.c.agent_id == bindparam("seen_agent"), agents.c.last_seen_at < bindparam("at"))
    .values(last_seen_at=bindparam("at"))
)
_EVENTS = (
    select(agent_events.c.event, agent_events.c.at, agent_events.c.detail)
    .where(agent_events.c.agent_id == bindparam("agent"))
    .order_by(agent_events.c.id.desc())
    .limit(bindparam("limit"))
)


class InvalidTags(Invalid):
    """details: `errors` with the message of each key."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(problems[key] for key in sorted(problems)))
        self.details = {"errors": {"tags": {key: [problems[key]] for key in sorted(problems)}}}


class AgentStore:
    """Agents in the metadata database. Any thread may call it; each public method is one transaction."""

    def __init__(self, db: Database, server_name: str) -> None:
        self._db = db
        self._server_name = server_name

    def get(self, agent_id: str, project: str | None = None) -> Agent:
        """Raises AgentNotFound; OtherProject when the caller is bound to another one."""
        with self._db.read() as connection:
            return _one(connection, agent_id, project)

    def search(self, q: str, page: int, per_page: int, project: str | None = None) -> Page[Agent]:
        """Agents by display name; a page beyond the last is the last. Raises FilterError."""
        matching = [language.parse(q)] if q else []
        if project is not None:
            matching.append(agents.c.project == project)
        found = select(agents).where(*matching).order_by(agents.c.display_name, agents.c.agent_id)
        with self._db.read() as connection:
            total = connection.scalar(select(sa.func.count()).select_from(agents).where(*matching)) or 0
            number = min(page, -(-total // per_page))
            rows = connection.execute(found.limit(per_page).offset(max(number - 1, 0) * per_page)).all()
            tags = _tags_of(connection, [row.agent_id for row in rows])
        return Page([Agent.from_row(row, tags.get(row.agent_id, {})) for row in rows], number, per_page, total)

    def set_tags(self, agent_id: str, tags: Mapping[str, str], now_us: int, project: str | None = None) -> None:
        """Add or overwrite tags; all or none. Raises AgentNotFound, OtherProject, InvalidTags."""
        with self._db.transaction() as tx:
            known = _one(tx, agent_id, project)
            _check_tags(tags, known.tags)
            tagged = known.tags | dict(tags)
            _replace(tx, agent_tags, agent_id, known.tags, tagged)
            _touch(tx, known.agent_id, known.facts, tagged, updated_at=now_us)

    def delete_tag(self, agent_id: str, key: str, now_us: int, project: str | None = None) -> None:
        """Also fine when there is no such tag. Raises AgentNotFound, OtherProject."""
        with self._db.transaction() as tx:
            known = _one(tx, agent_id, project)
            left = {name: value for name, value in known.tags.items() if name != key}
            _replace(tx, agent_tags, agent_id, known.tags, left)
            _touch(tx, agent_id, known.facts, left, updated_at=now_us)

    def delete(self, agent_id: str, now_us: int, project: str | None = None) -> None:
        """Remove an agent with its facts and tags; its executions stay. Raises AgentNotFound, OtherProject."""
        with self._db.transaction() as tx:
            _one(tx, agent_id, project)
            tx.execute(delete(agents).where(agents.c.agent_id == agent_id))
            add_event(tx, agent_id, "deleted", now_us)

    def events(self, agent_id: str, limit: int = 100) -> list[AgentEvent]:
        """The newest first."""
        with self._db.read() as connection:
            rows = connection.execute(_EVENTS, {"agent": agent_id, "limit": limit})
            return [AgentEvent(*row) for row in rows]

    def counts(self) -> dict[bool, int]:
        """How many are online (True) and offline (False)."""
        with self._db.read() as connection:
            rows = connection.execute(select(agents.c.is_online, sa.func.count()).group_by(agents.c.is_online))
            return {True: 0, False: 0} | {bool(online): count for online, count in rows}

    def online(self) -> list[str]:
        """Ids of all that are online."""
        with self._db.read() as connection:
            return list(connection.scalars(select(agents.c.agent_id).where(agents.c.is_online)))

    def come_online(self, agent_id: str, now_us: int) -> bool:
        """A sign of life of one that is not known to be online. Whether there is such an agent."""
        with self._db.transaction() as tx:
            self.set_online(tx, agent_id, online=True, now_us=now_us)
            return tx.execute(_UPDATE, {"agent": agent_id, "last_seen_at": now_us}).rowcount > 0

    def go_offline(self, agent_ids: Sequence[str], now_us: int, detail: str) -> list[str]:
        """Those of them that were online until now."""
        with self._db.transaction() as tx:
            return [each for each in agent_ids if self.set_online(tx, each, online=False, now_us=now_us, detail=detail)]

    def save_seen(self, seen: Mapping[str, int]) -> int:
        """Store when agents were last heard of."""
        if seen:
            with self._db.transaction(is_durable=False) as tx:
                tx.execute(_SEEN, [{"seen_agent": agent_id, "at": at} for agent_id, at in seen.items()])
        return len(seen)

    def known(self, agent_id: str) -> Known | None:
        """None of an unknown agent."""
        with self._db.read() as connection:
            row = connection.execute(_KNOWN, {"agent": agent_id}).one_or_none()
        return None if row is None else Known(*row)

    def mark_delivered(self, tx: sa.Connection, agent_id: str, epoch: str, last_seq: int) -> None:
        """Messages of the epoch up to this one have had their effect."""
        tx.execute(_UPDATE, {"agent": agent_id, "epoch": epoch, "last_seq": last_seq})

    def prune_events(self, before_us: int) -> int:
        with self._db.transaction() as tx:
            return tx.execute(delete(agent_events).where(agent_events.c.at <= before_us)).rowcount

    def set_online(self, tx: sa.Connection, agent_id: str, *, online: bool, now_us: int, detail: str = "") -> bool:
        """Whether this changed anything. The fact `online` goes with it; `updated_with` does not."""
        row = tx.execute(_BY_ID, {"agent": agent_id}).one_or_none()
        if row is None or row.is_online == online:
            return False
        old = json.loads(row.facts)
        facts = old | {"online": online}
        _replace(tx, agent_facts, agent_id, old, facts)
        changes = {"is_online": online, "facts": _json(facts), "updated_at": now_us}
        tx.execute(_UPDATE, {"agent": agent_id, **changes})
        add_event(tx, agent_id, "online" if online else "offline", now_us, detail)
        return True

    def register(
        self,
        tx: sa.Connection,
        agent_id: str,
        registration: Registration,
        *,
        project: str,
        organization: str,
        token_id: int | None,
        now_us: int,
    ) -> str:
        """Merge facts: null removes one, any other value replaces it whole, `online` is true unless it says false.

        Of an unknown agent everything is kept as it comes, nulls included, and it is online. The same registration
        again has no effect. Returns the event it made, if any: online, offline. Raises Invalid.
        """
        row = tx.execute(_BY_ID, {"agent": agent_id}).one_or_none()
        if row is not None and _is_repeated(row, registration, now_us):
            return ""
        old: dict[str, Any] = {} if row is None else json.loads(row.facts)
        facts = _merged(None if row is None else old, registration.payload)
        if len(facts) > MAX_FACTS:
            raise Invalid(f"an agent has at most {MAX_FACTS} facts")
        online = facts["online"] is not False
        values = {
            "project": project,
            "organization": organization,
            "updated_with": registration.registration_id,
            "updated_by": self._server_name,
            "updated_at": now_us,
            "last_seen_at": now_us,
            "is_online": online,
        }
        if row is None:
            fresh = {"created_at": now_us, "epoch": "", "last_seq": 0, "facts": "{}", "display_name": agent_id}
            tx.execute(insert(agents).values(agent_id=agent_id, token_id=token_id, **fresh, **values))
        _replace(tx, agent_facts, agent_id, old, facts)
        if row is not None and old.get("hostname") == facts.get("hostname"):
            tx.execute(_UPDATE, {"agent": agent_id, "facts": _json(facts), **values})
        else:
            _touch(tx, agent_id, facts, _tags_of(tx, [agent_id]).get(agent_id, {}), **values)
        if row is not None and row.is_online == online:
            return ""
        event, detail = "online" if online else "offline", "" if row is not None else "first registration"
        add_event(tx, agent_id, event, now_us, detail)
        return event


def add_event(tx: sa.Connection, agent_id: str, event: str, now_us: int, detail: str = "") -> None:
    tx.execute(_ADD_EVENT, {"agent_id": agent_id, "event": event, "at": now_us, "detail": detail})


def _is_repeated(row: Any, registration: Registration, now_us: int) -> bool:
    """Never of a goodbye: the text of a last will is the same each time."""
    is_same: bool = row.updated_with == registration.registration_id and now_us - row.updated_at < REPEAT_US
    return is_same and not registration.is_goodbye


def _one(connection: sa.Connection, agent_id: str, project: str | None) -> Agent:
    row = connection.execute(_BY_ID, {"agent": agent_id}).one_or_none()
    if row is None:
        raise AgentNotFound(agent_id)
    if project is not None and row.project != project:
        raise OtherProject(row.project, project)
    return Agent.from_row(row, _tags_of(connection, [agent_id]).get(agent_id, {}))


def _tags_of(connection: sa.Connection, agent_ids: Iterable[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    query = _TAGS.where(agent_tags.c.agent_id.in_(list(agent_ids))).order_by(agent_tags.c.name)
    for agent_id, name, text in connection.execute(query):
        found.setdefault(agent_id, {})[name] = text
    return found


def _merged(old: Mapping[str, Any] | None, payload: Mapping[str, Any]) -> dict[str, Any]:
    if old is None:
        return dict(payload) | {"online": True}
    online = {"online": True} if payload.get("online") is None else {}
    merged = dict(old) | dict(payload) | online
    return {name: value for name, value in merged.items() if not (name in payload and value is None)}


def _replace(tx: sa.Connection, table: sa.Table, agent_id: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Rows of the filter language, one for each value that has a text."""
    before, after = _texts(old), _texts(new)
    if gone := before.keys() - after.keys():
        tx.execute(_TAKE_OUT[table], [{"agent": agent_id, "key": name} for name in gone])
    if changed := [
        {"agent": agent_id, "key": name, "to": text, "as_number": number_of(text)}
        for name, text in after.items()
        if before.get(name, text) != text
    ]:
        tx.execute(_CHANGE[table], changed)
    if fresh := [
        {"agent_id": agent_id, "name": name, "text": text, "number": number_of(text)}
        for name, text in after.items()
        if name not in before
    ]:
        tx.execute(_PUT_IN[table], fresh)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: text for name, value in values.items() if (text := text_of(value)) is not None}


def _touch(tx: sa.Connection, agent_id: str, facts: Mapping[str, Any], tags: Mapping[str, str], **values: Any) -> None:
    name = tags.get("name") or text_of(facts.get("hostname")) or agent_id
    tx.execute(_UPDATE, {"agent": agent_id, "facts": _json(facts), "display_name": name, **values})


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _check_tags(tags: Mapping[str, str], known: Mapping[str, str]) -> None:
    """known: the tags that the agent has."""
    problems = {key: text for key, value in tags.items() if (text := _tag_problem(key, value))}
    for key in sorted(tags.keys() - known.keys())[max(0, MAX_TAGS - len(known)) :]:
        problems.setdefault(key, f"Tag key {key} is too many: an agent has at most {MAX_TAGS} tags.")
    if problems:
        raise InvalidTags(problems)


def _tag_problem(key: str, value: str) -> str:
    if not _TAG_KEY.fullmatch(key):
        return f"Tag key {key} is not alphanumeric [a-z0-9A-Z]."
    if not value:
        return f"Tag key {key} is empty."
    if len(key) > MAX_TAG_KEY:
        return f"Tag key {key} is longer than {MAX_TAG_KEY} characters."
    if len(value) > MAX_TAG_VALUE:
        return f"Tag key {key} has a value of more than {MAX_TAG_VALUE} characters."
    return f"Tag key {key} has a value with U+0000." if "\0" in value else ""

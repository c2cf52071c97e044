"""The write-ahead log gives back what it took, whatever happened to its files in between."""

from __future__ import annotations

import errno
import logging
import os
import stat
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc.metrics.storage import wal as wal_module
from arc.metrics.storage.wal import Entry, WriteAheadLog

HEADER_SIZE = 16


def entry(number, size=10, database="default", options=""):
    return Entry(1, database, b"%06d" % number + b"x" * size, 1_700_000_000_000_000 + number, options)


@pytest.fixture
def logs(tmp_path):
    """`logs(**options)` opens a log on the same directory again; all are closed at the end."""
    opened = []

    def open_log(**options):
        opened.append(WriteAheadLog(tmp_path / "wal", **options))
        return opened[-1]

    yield open_log
    for log in opened:
        log.close()


def read_all(log):
    return [found for number in log.segments() for found in log.read(number)]


def closed_segment(logs, *entries):
    """The path of a segment with these entries, its log closed."""
    log = logs()
    for each in entries:
        log.append([each])
    log.close()
    return log.path(log.number)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_what_was_appended_is_read_in_order(logs):
    log = logs()
    entries = [entry(1, options="precision=ms"), entry(2, database="factory"), Entry(3, "d", b"", -5)]

    log.append(entries[:1])
    log.append(entries[1:])
    log.close()

    again = logs()
    assert read_all(again) == entries
    assert (again.report.entries, again.report.skipped, again.report.cut_bytes) == (3, 0, 0)


@given(
    st.lists(
        st.builds(
            Entry,
            kind=st.integers(0, 255),
            database=st.text(max_size=64).filter(lambda text: len(text.encode()) < 256),
            body=st.binary(max_size=300) | st.just(b"\xabARC" * 3),
            received_us=st.integers(-(2**63), 2**63 - 1),
            options=st.text(max_size=50),
        ),
        max_size=5,
    )
)
def test_any_entry_survives(tmp_path_factory, entries):
    directory = tmp_path_factory.mktemp("wal")
    log = WriteAheadLog(directory, sync="off")
    log.append(entries)
    log.close()

    assert read_all(WriteAheadLog(directory, sync="off")) == entries


def test_group_is_one_block_and_one_sync(logs):
    log = logs()
    log.append([entry(0)])

    log.append([entry(number) for number in range(1, 4)])

    assert (log.entries, log.syncs) == (4, 2)
    assert log.bytes_written == log.size_bytes - HEADER_SIZE == log.path(1).stat().st_size - HEADER_SIZE


def test_group_larger_than_one_system_call_takes(logs):
    log = logs()
    entries = [entry(number) for number in range(wal_module._MAX_IOV + 7)]

    log.append(entries)
    log.close()

    assert read_all(logs()) == entries


def test_entry_larger_than_a_segment(logs):
    log = logs(segment_bytes=1000)
    large = entry(1, size=3_000_000)

    log.append([large])

    assert log.is_full
    log.close()
    assert read_all(logs()) == [large]


def test_rotation_begins_a_new_segment_with_the_next_append(logs):
    log = logs()
    log.append([entry(1)])

    assert log.rotate() == 1
    assert log.rotate() == 1  # nothing was appended meanwhile
    log.append([entry(2)])

    assert log.number == 2
    assert log.segments() == [1, 2]
    assert [found.body for found in log.read(1)] == [entry(1).body]


def test_segments_are_for_the_owner_only(logs):
    path = closed_segment(logs, entry(1))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_numbers_go_on_after_a_restart(logs):
    closed_segment(logs, entry(1))
    log = logs()

    log.append([entry(2)])

    assert log.number == 2


def test_numbers_the_lake_knows_are_never_used_again(logs):
    log = logs()
    log.start_after(41)

    log.append([entry(1)])

    assert log.segments() == [42]


def test_removed_are_only_the_segments_up_to_the_mark(logs):
    log = logs()
    for number in range(3):
        log.append([entry(number)])
        log.rotate()

    log.remove_through(2)

    assert log.segments() == [3]


def test_open_segment_is_never_removed(logs):
    log = logs()
    log.append([entry(1)])

    log.remove_through(99)

    assert log.segments() == [1]


def test_foreign_files_in_the_directory_are_left_alone(logs, tmp_path):
    log = logs()
    (tmp_path / "wal" / "notes.wal").write_text("mine")
    (tmp_path / "wal" / "old.tmp").write_text("mine")

    log.remove_through(99)

    assert log.segments() == []
    assert len(list((tmp_path / "wal").iterdir())) == 2


@pytest.mark.parametrize("missing", [1, 5, 20, 30])
def test_tail_that_was_not_finished_is_cut_off(logs, missing, caplog):
    path = closed_segment(logs, entry(1), entry(2))
    size = path.stat().st_size
    os.truncate(path, size - missing)
    log = logs()

    assert read_all(log) == [entry(1)]

    one = (size - HEADER_SIZE) // 2
    assert log.report.cut_bytes == one - missing
    assert path.stat().st_size == HEADER_SIZE + one
    assert "cut off" in caplog.text


def test_what_was_cut_off_once_is_gone(logs):
    path = closed_segment(logs, entry(1), entry(2))
    os.truncate(path, path.stat().st_size - 1)
    read_all(logs())

    again = logs()

    assert read_all(again) == [entry(1)]
    assert again.report.cut_bytes == 0


def test_damage_in_the_last_entry_is_a_tail_to_cut(logs):
    path = closed_segment(logs, entry(1), entry(2))
    flip(path, path.stat().st_size - 1)
    log = logs()

    assert read_all(log) == [entry(1)]
    assert log.report.cut_bytes > 0


@pytest.mark.parametrize("part", ["marker", "length", "checksum", "meta", "body"])
def test_damage_in_the_middle_costs_that_entry_only(logs, part, caplog):
    path = closed_segment(logs, entry(1), entry(2), entry(3))
    one = (path.stat().st_size - HEADER_SIZE) // 3
    flip(path, HEADER_SIZE + one + {"marker": 0, "length": 7, "checksum": 8, "meta": 14, "body": 40}[part])
    log = logs()

    assert read_all(log) == [entry(1), entry(3)]
    assert (log.report.entries, log.report.skipped, log.report.cut_bytes) == (2, 1, 0)
    assert "skipped" in caplog.text


def test_damaged_header_costs_no_entry(logs, caplog):
    path = closed_segment(logs, entry(1), entry(2))
    flip(path, 3)

    assert read_all(logs()) == [entry(1), entry(2)]
    assert "damaged header" in caplog.text


@pytest.mark.parametrize("size", [0, 5])
def test_unfinished_header_is_what_a_crash_at_its_creation_leaves(logs, caplog, size):
    path = closed_segment(logs, entry(1))
    os.truncate(path, size)

    assert read_all(logs()) == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_every_bit_may_flip(logs):
    """Whatever byte is damaged: no error, no invented entry, at most the damaged one missing."""
    path = closed_segment(logs, entry(1), entry(2), entry(3))
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes((good[at] ^ 0x41,)) + good[at + 1 :])

        found = read_all(logs(sync="off"))

        assert [each for each in (entry(1), entry(2), entry(3)) if each in found] == found
        assert len(found) >= 2


def test_body_that_looks_like_an_entry_is_not_read_as_one(logs):
    inner = b"".join(entry(7).frames())
    outer = Entry(1, "default", inner, 0)
    closed_segment(logs, outer, entry(2))

    assert read_all(logs()) == [outer, entry(2)]


def replace_calls(patch, **answers):
    """Calls of `os`: answers are errors to raise or functions that get the real call first."""

    def wrapped(real, answer):
        def call(*args):
            if isinstance(answer, OSError):
                raise answer
            return answer(real, *args)

        return call

    for name, answer in answers.items():
        patch.setattr(wal_module.os, name, wrapped(getattr(os, name), answer))


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_write_that_takes_a_part_is_completed(logs, monkeypatch):
    log = logs()
    log.append([entry(1)])
    with monkeypatch.context() as patch:
        replace_calls(patch, writev=lambda real, fd, frames: real(fd, [b"".join(frames)[:10]]))

        log.append([entry(2)])

    log.close()
    assert read_all(logs()) == [entry(1), entry(2)]


def test_failed_write_is_taken_back(logs, monkeypatch):
    log = logs()
    log.append([entry(1)])
    size = log.path(1).stat().st_size
    with monkeypatch.context() as patch:
        # a part fits, then the disk is full
        replace_calls(patch, writev=lambda real, fd, frames: real(fd, [frames[0]]), write=no_space)

        with pytest.raises(OSError, match="No space"):
            log.append([entry(2), entry(3)])

    assert log.path(1).stat().st_size == size
    assert log.failed_writes == 1
    log.append([entry(4)])
    log.close()
    assert read_all(logs()) == [entry(1), entry(4)]


def test_failed_sync_takes_the_entry_back(logs, monkeypatch):
    log = logs()
    log.append([entry(1)])
    with monkeypatch.context() as patch:
        replace_calls(patch, fdatasync=OSError(errno.EIO, "Input/output error"))

        with pytest.raises(OSError, match="Input/output"):
            log.append([entry(2)])

    log.append([entry(3)])

    assert log.number == 2  # after a failed sync nothing more goes into that segment
    log.close()
    assert read_all(logs()) == [entry(1), entry(3)]


@pytest.mark.parametrize("space", [0, 7])
def test_segment_that_cannot_be_begun_leaves_nothing(logs, monkeypatch, space):
    log = logs()
    with monkeypatch.context() as patch:
        replace_calls(patch, writev=lambda real, fd, frames: real(fd, [frames[0][:space]]), write=no_space)

        with pytest.raises(OSError, match="No space"):
            log.append([entry(1)])

    assert log.segments() == []
    assert log.failed_writes == 1
    log.append([entry(2)])
    assert (log.number, read_all(logs())) == (1, [entry(2)])


def test_sync_at_intervals_comes_by_itself(logs, monkeypatch):
    log = logs(sync="interval", sync_interval_ms=1)
    synced = wal_module.threading.Event()
    replace_calls(monkeypatch, fdatasync=lambda real, fd: (real(fd), synced.set()))

    log.append([entry(1)])

    assert synced.wait(30)


def test_closing_syncs_what_the_interval_left(logs, monkeypatch):
    log = logs(sync="interval", sync_interval_ms=3_600_000)
    log.append([entry(1)])
    synced = []
    replace_calls(monkeypatch, fdatasync=lambda real, fd: synced.append(fd))

    log.close()

    assert synced


def test_without_sync_nothing_is_synced(logs, monkeypatch):
    log = logs(sync="off")
    replace_calls(monkeypatch, fdatasync=OSError(errno.EIO, "Input/output error"))

    log.append([entry(1)])
    log.close()

    assert read_all(logs()) == [entry(1)]


def test_format_on_disk_is_the_documented_one(logs):
    """Later versions must read it."""
    path = closed_segment(logs, Entry(2, "db", b"body", 7, "opt"))

    data = path.read_bytes()

    assert data[:HEADER_SIZE] == b"ARCWAL1\n" + struct.pack("<Q", 1)
    marker, length, checksum = struct.unpack_from("<4sII", data, HEADER_SIZE)
    payload = data[HEADER_SIZE + 12 :]
    assert (marker, length, checksum) == (b"\xabARC", len(payload), zlib.crc32(payload))
    assert payload == struct.pack("<qBBH", 7, 2, 2, 3) + b"db" + b"opt" + b"body"

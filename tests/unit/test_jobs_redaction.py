"""Redaction: no value of a secret gets out, whole, encoded, or in two pieces."""

from __future__ import annotations

import itertools
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc.jobs.redaction import REDACTED, Redactor

SECRET = 's3cr"t/välue 1'


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        "s3cr%22t%2fv%c3%a4lue%201",
    ],
)
def test_a_secret_is_hidden_however_it_is_written(written: str) -> None:
    assert Redactor({"token": SECRET}).text(f"before {written} after") == f"before {REDACTED} after"


def test_the_line_end_of_a_secret_need_not_be_printed() -> None:
    assert Redactor({"key": "abc\n"}).text("key=abc;") == f"key={REDACTED};"


def test_the_lines_of_a_secret_are_hidden_one_by_one() -> None:
    key = "-----BEGIN-----\nMIIEpAIBAAKC\n}\n"

    assert Redactor({"key": key}).text("  MIIEpAIBAAKC {}") == f"  {REDACTED} {{}}"


def test_empty_secrets_hide_nothing() -> None:
    assert Redactor({"none": ""}).text("some text") == "some text"


def test_the_longer_of_two_secrets_is_hidden_whole() -> None:
    assert Redactor({"short": "abc", "long": "abcdef"}).text("abcdef abc") == f"{REDACTED} {REDACTED}"


def test_keys_that_look_like_a_secret_hide_their_values() -> None:
    shown = Redactor({}).mapping({"db_password": "x", "AWS_ACCESS_KEY_ID": "y", "plain": "z"})

    assert shown == {"db_password": REDACTED, "AWS_ACCESS_KEY_ID": REDACTED, "plain": "z"}


def test_patterns_match_whole_keys() -> None:
    shown = Redactor({}, patterns=["*_token", "pin"]).mapping(
        {"my_token": "a", "PIN": "b", "pin": "c", "password": "d"}
    )

    assert shown == {"my_token": REDACTED, "PIN": "b", "pin": REDACTED, "password": "d"}


def test_a_job_is_redacted_everywhere() -> None:
    job = {
        "id": "xyz1",
        "state": "COMPLETED",
        "name": "uses xyz",
        "inputs": {"a": "xyz", "password": "p"},
        "secrets": {"token": "xyz"},
        "context": {"secrets": {"token": "xyz"}, "tasks": {"state": "xyz", "xyz": ""}, "inputs": {"a": "xyz"}},
        "tasks": [
            {
                "name": "t",
                "run": "echo xyz",
                "cmd": ["xyz"],
                "env": {"xyz": "1"},
                "files": {"secret.txt": "has xyz", "state": "xyz", "xyz.txt": ""},
                "registry": {"username": "u", "password": ""},
                "mounts": [{"opts": {"password": "p"}}],
                "sidecars": [{"env": {"A": "xyz"}}],
                "subjob": {"secrets": {"inner": "other"}, "tasks": [{"env": {"B": "xyz"}}]},
                "each": {"task": {"env": {"C": "xyz"}}},
            }
        ],
        "webhooks": [{"url": "http://host/xyz", "headers": {"X-Secret": "a"}}],
        "result": "xyz",
        "error": "failed with xyz",
    }

    shown = Redactor({"token": "xyz"}).job(job)

    assert shown["id"] == "xyz1"
    assert "xyz" not in json.dumps(shown | {"id": ""})
    assert shown["inputs"]["password"] == REDACTED
    assert shown["tasks"][0]["registry"] == {"username": "u", "password": REDACTED}
    assert shown["tasks"][0]["subjob"]["secrets"] == {"inner": REDACTED}
    assert shown["tasks"][0]["files"]["secret.txt"] == f"has {REDACTED}"
    assert shown["tasks"][0]["mounts"][0]["opts"] == {"password": REDACTED}
    assert shown["webhooks"][0]["headers"] == {"X-Secret": REDACTED}


def test_ids_and_states_survive_any_secret() -> None:
    task = {"id": "a1", "jobId": "b1", "state": "RUNNING", "position": 1, "name": "RUNNING 1"}

    shown = Redactor({"one": "1", "state": "RUNNING"}).task(task)

    assert shown == task | {"name": f"{REDACTED} {REDACTED}"}


def test_redaction_can_be_switched_off() -> None:
    shown = Redactor({"token": "xyz"}, enabled=False)

    assert shown.job({"result": "xyz", "inputs": {"password": "p"}}) == {"result": "xyz", "inputs": {"password": "p"}}
    assert shown.text("xyz") == "xyz"


def test_the_beginning_of_a_secret_is_held_back() -> None:
    stream = Redactor({"token": "secret"}).stream()

    assert stream.feed("a sec") == "a "
    assert stream.feed("ret b") == f"{REDACTED} b"
    assert stream.feed(" sec") == " "
    assert stream.feed("tion") == "section"
    assert stream.feed("s") == ""
    assert stream.close() == "s"


def test_a_secret_that_may_become_a_longer_one_is_held_back() -> None:
    stream = Redactor({"short": "abc", "long": "abcdef"}).stream()

    assert stream.feed("x abc") == "x "
    assert stream.feed("def") + stream.close() == REDACTED


@given(
    secrets=st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3),
    text=st.text("abc", max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=8),
)
def test_pieces_show_no_more_than_the_whole(secrets: list[str], text: str, cuts: list[int]) -> None:
    redactor = Redactor({str(number): value for number, value in enumerate(secrets)})
    stream, bounds = redactor.stream(), sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})

    shown = "".join(stream.feed(text[start:end]) for start, end in itertools.pairwise(bounds))

    assert shown + stream.close() == redactor.text(text)

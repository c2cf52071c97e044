"""The Python client of the API reference: msgpack, requests and pyarrow, nothing of ours."""

from __future__ import annotations

import time
from typing import Any

import msgpack
import pyarrow as pa
import requests


class ArcClient:
    def __init__(self, base_url: str, token: str) -> None:
        self.base_url = base_url
        self.headers = {"Authorization": f"Bearer {token}"}

    def write(
        self,
        measurement: str,
        fields: dict[str, Any],
        tags: dict[str, str] | None = None,
        timestamp: int | None = None,
    ) -> None:
        item = {
            "m": measurement,
            "t": timestamp or int(time.time() * 1000),
            "h": tags.get("host") if tags else None,
            "tags": tags,
            "fields": fields,
        }
        response = requests.post(
            f"{self.base_url}/write/v2/msgpack",
            headers={**self.headers, "Content-Type": "application/msgpack"},
            data=msgpack.packb({"batch": [item]}),
            timeout=30,
        )
        response.raise_for_status()

    def query(self, sql: str) -> dict[str, Any]:
        response = requests.post(
            f"{self.base_url}/query", headers=self.headers, json={"sql": sql, "format": "json"}, timeout=30
        )
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def query_arrow(self, sql: str) -> pa.Table:
        response = requests.post(f"{self.base_url}/query/arrow", headers=self.headers, json={"sql": sql}, timeout=30)
        response.raise_for_status()
        with pa.ipc.open_stream(response.content) as reader:
            return reader.read_all()

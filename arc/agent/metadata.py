"""Facts from the metadata service of a cloud (OpenStack), asked for only when an option says so."""

from __future__ import annotations

import json
from typing import Any

from arc.agent.http import Connection

ADDRESS = "http://169.254.169.254"
TIME_LIMIT_S = 2.0
_DOCUMENT, _PUBLIC_IP = "/openstack/latest/meta_data.json", "/latest/meta-data/public-ipv4"


def metadata() -> dict[str, Any]:
    """Nulls for what the service does not tell."""
    try:
        document = json.loads(_get(_DOCUMENT) or "{}")
    except ValueError:
        document = {}
    found = document if isinstance(document, dict) else {}
    return {
        "metadata_uuid": found.get("uuid"),
        "metadata_availability_zone": found.get("availability_zone"),
        "metadata_name": found.get("name"),
        "metadata_public_ipv4": _get(_PUBLIC_IP).strip() or None,
    }


def _get(path: str) -> str:
    connection = Connection(ADDRESS, connect_s=TIME_LIMIT_S)
    try:
        answer = connection.request("GET", path, timeout_s=TIME_LIMIT_S)
        return answer.body.decode("utf-8", "replace") if answer.status == 200 else ""
    except OSError:
        return ""
    finally:
        connection.close()

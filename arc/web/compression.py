"""Response compression: the best coding that a client says it can read, for answers worth the work."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import zstandard
from flask import request

if TYPE_CHECKING:
    from flask import Response

MIN_BYTES = 1400  # what fits one packet gains nothing
LEVEL = 1  # of both codings: on a local network more effort costs more time than it saves


def compress(response: Response) -> Response:
    """Encode the body as Accept-Encoding allows, zstd before gzip."""
    response.vary.add("Accept-Encoding")
    body = response.get_data()
    accepted = request.accept_encodings
    if len(body) < MIN_BYTES:
        return response
    if accepted.quality("zstd") > 0:
        response.set_data(zstandard.ZstdCompressor(level=LEVEL).compress(body))
        response.content_encoding = "zstd"
    elif accepted.quality("gzip") > 0:
        response.set_data(gzip.compress(body, LEVEL))
        response.content_encoding = "gzip"
    return response

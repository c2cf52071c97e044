"""Request bodies as they were before the client compressed them.

inflate() goes by the first bytes of the body. What the header announces must only be a coding Arc knows: proxies and
client libraries announce gzip for bodies nobody compressed, so such a body passes as it is and, if it is damaged,
fails in its decoder.

Output is counted while it is made, step by step, so that a small body cannot make the server allocate a large one.
"""

from __future__ import annotations

import io
from typing import Any

import zstandard

from arc.errors import Invalid, TooLarge

gzip_engine: Any
try:
    from isal import isal_zlib as gzip_engine
except ImportError:  # no wheel for this machine; zlib gives the same at half the speed
    import zlib as gzip_engine

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
CODINGS = frozenset({"", "identity", "gzip", "x-gzip", "zstd"})
MAX_ZSTD_WINDOW = 32 << 20  # bytes; a decoder holds one window beside its output
_FIRST_INPUT_STEP, _INPUT_STEP = 4 << 10, 256 << 10  # bytes; what a step did not use is copied, also behind the end
_OUTPUT_STEP = 4 << 20  # bytes; the most that is made before it is counted
_GZIP_WBITS = 31  # gzip header and trailer around deflate
_ZSTD_HEADER_MAX = 18  # bytes
_ZSTD_RLE_BLOCK = 1  # one byte stands for the whole block


def inflate(body: bytes, announced: str, limit: int) -> bytes:
    """The plain body.

    announced: Content-Encoding of the request, or "".
    limit: bytes; neither the body nor what comes out of it may be larger.
    Raises Invalid (unknown coding, damaged or truncated data) and TooLarge.
    """
    if len(body) > limit:
        raise _too_large(limit)
    if body.startswith(GZIP_MAGIC):
        return _gunzip(body, limit)
    if body.startswith(ZSTD_MAGIC):
        return _unzstd(body, limit)
    if announced.strip().lower() not in CODINGS:
        raise Invalid(f"Content-Encoding {announced[:40]!r} is not supported; use gzip, zstd or identity")
    return body


def _gunzip(body: bytes, limit: int) -> bytes:
    """All members of a gzip file, one after the other; it may be padded with zeros."""
    out = _BoundedBuffer(limit)
    rest = memoryview(body)
    try:
        while rest and (rest[0] or any(rest)):
            rest = _gunzip_member(rest, out)
    except gzip_engine.error as error:
        raise Invalid(f"Invalid gzip compression: {error}") from None
    return out.getvalue()


def _gunzip_member(data: memoryview, out: _BoundedBuffer) -> memoryview:
    """Writes one member to out; returns the data behind it."""
    decoder = gzip_engine.decompressobj(wbits=_GZIP_WBITS)
    end, step = 0, _FIRST_INPUT_STEP
    while end < len(data):
        piece = data[end : end + step]
        end += len(piece)
        step = min(4 * step, _INPUT_STEP)
        made = _OUTPUT_STEP
        while (piece or made == _OUTPUT_STEP) and not decoder.eof:
            made = out.write(decoder.decompress(piece, _OUTPUT_STEP))
            piece = decoder.unconsumed_tail
        if decoder.eof:
            return data[end - len(decoder.unused_data) :]
    raise Invalid("Invalid gzip compression: the data ends early")


def _unzstd(body: bytes, limit: int) -> bytes:
    """All frames, one after the other."""
    out = _BoundedBuffer(limit)
    try:
        _check_zstd_frames(body, limit)
        reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True)
        while piece := reader.read(_OUTPUT_STEP):
            out.write(piece)
    except zstandard.ZstdError as error:
        raise Invalid(f"Invalid zstd compression: {error}") from None
    return out.getvalue()


def _check_zstd_frames(body: bytes, limit: int) -> None:
    """Walks the block headers, because the reader takes the end of its input for the end of a frame."""
    at = 0
    while at < len(body):
        start = body[at : at + _ZSTD_HEADER_MAX]
        frame = zstandard.get_frame_parameters(start)
        if start.startswith(ZSTD_MAGIC):
            _check_zstd_size(frame, limit)
            at = _end_of_zstd_blocks(body, at + zstandard.frame_header_size(start)) + 4 * frame.has_checksum
        else:  # a skippable frame
            at += 8 + frame.content_size
    if at > len(body):
        raise zstandard.ZstdError("the data ends early")


def _end_of_zstd_blocks(body: bytes, at: int) -> int:
    """Offset behind the last block of the frame whose first block begins at `at` (RFC 8878, 3.1.1.2)."""
    last = 0
    while not last and at < len(body):
        header = int.from_bytes(body[at : at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == _ZSTD_RLE_BLOCK else size)
    return at if last else len(body) + 1


def _check_zstd_size(frame: zstandard.FrameParameters, limit: int) -> None:
    if frame.content_size != zstandard.CONTENTSIZE_UNKNOWN:
        if frame.content_size > limit:
            raise _too_large(limit)
    elif frame.window_size > MAX_ZSTD_WINDOW:
        raise TooLarge(f"zstd window too large (max {MAX_ZSTD_WINDOW >> 20}MB)")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"Payload too large (max {limit / (1 << 20):g}MB)")


class _BoundedBuffer(io.BytesIO):
    """Grows up to a limit; getvalue() does not copy."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, piece: bytes) -> int:  # type: ignore[override]
        if self.tell() + len(piece) > self._limit:
            raise _too_large(self._limit)
        return super().write(piece)

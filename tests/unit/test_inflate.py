"""Bodies come out as they went in, and neither damage nor bombs get through."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib

import pytest
import zstandard

from arc.errors import Invalid, TooLarge
from arc.metrics.decode import inflate as module
from arc.metrics.decode.inflate import inflate

LIMIT = 10 << 20
TEXT = b"cpu,host=a usage=1.5 1697472000000000000\n" * 1000


def zstd_stream(data: bytes, level: int = 3) -> bytes:
    """A frame that does not say how much it holds."""
    encoder = zstandard.ZstdCompressor(level=level).compressobj()
    return encoder.compress(data) + encoder.flush()


@pytest.fixture(params=["isal", "zlib"])
def gzip_engine(request, monkeypatch):
    if request.param == "zlib":
        monkeypatch.setattr(module, "gzip_engine", zlib)


@pytest.mark.usefixtures("gzip_engine")
@pytest.mark.parametrize("announced", ["", "identity", "gzip", "x-gzip", "zstd", "GZIP"])
@pytest.mark.parametrize(
    "body",
    [
        TEXT,
        gzip.compress(TEXT, mtime=0),
        gzip.compress(TEXT[:7], mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(TEXT[7:], mtime=0),
        gzip.compress(TEXT, mtime=0) + b"\0" * 512,
        zstandard.compress(TEXT),
        zstandard.ZstdCompressor(write_checksum=True).compress(TEXT),
        zstd_stream(TEXT[:100]) + zstandard.compress(TEXT[100:]),
        zstandard.compress(TEXT) + b"\x50\x2a\x4d\x18\x05\0\0\0hello" + zstandard.compress(b""),
    ],
    ids=["plain", "gzip", "members", "padded", "zstd", "checksum", "frames", "skippable"],
)
def test_first_bytes_decide_not_the_header(body, announced):
    assert inflate(body, announced, LIMIT) == TEXT


@pytest.mark.usefixtures("gzip_engine")
@pytest.mark.parametrize("size", [0, 1, module._INPUT_STEP, module._OUTPUT_STEP, module._OUTPUT_STEP + 1, 9 << 20])
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, zstd_stream])
def test_every_size_comes_back_whole(compress, size):
    noise = os.urandom(min(size, 700_000))  # does not compress, so several input steps are needed
    data = noise + b"x" * (size - len(noise))

    assert inflate(compress(data), "", LIMIT) == data


def test_unknown_coding_is_refused():
    with pytest.raises(Invalid, match="Content-Encoding 'br' is not supported"):
        inflate(TEXT, "br", LIMIT)


@pytest.mark.usefixtures("gzip_engine")
@pytest.mark.parametrize("cut", [3, 9, 12, 50, -9, -4, -1])
def test_truncated_gzip_is_refused(cut):
    with pytest.raises(Invalid, match=r"^Invalid gzip compression: "):
        inflate(gzip.compress(TEXT)[:cut], "gzip", LIMIT)


@pytest.mark.parametrize("cut", [4, 6, 9, 12, -4, -1])
@pytest.mark.parametrize("compress", [zstandard.compress, zstd_stream])
def test_truncated_zstd_is_refused(compress, cut):
    with pytest.raises(Invalid, match=r"^Invalid zstd compression: "):
        inflate(compress(TEXT)[:cut], "zstd", LIMIT)


@pytest.mark.usefixtures("gzip_engine")
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_damaged_data_is_refused(compress):
    body = compress(os.urandom(1000))
    with pytest.raises(Invalid, match=r"^Invalid (gzip|zstd) compression: "):
        inflate(body[:500] + b"\0\1\2\3" + body[504:], "", LIMIT)


@pytest.mark.usefixtures("gzip_engine")
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_garbage_behind_the_data_is_refused(compress):
    with pytest.raises(Invalid, match="compression"):
        inflate(compress(TEXT) + b"garbage behind", "", LIMIT)


@pytest.mark.usefixtures("gzip_engine")
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress, zstd_stream])
def test_limit_is_exact(compress):
    body = compress(TEXT)

    assert inflate(body, "", len(TEXT)) == TEXT
    with pytest.raises(TooLarge, match="Payload too large"):
        inflate(body, "", len(TEXT) - 1)


def test_too_large_names_the_limit_in_megabytes():
    with pytest.raises(TooLarge, match=r"^Payload too large \(max 1MB\)$"):
        inflate(b"x" * ((1 << 20) + 1), "", 1 << 20)


@pytest.mark.parametrize("level", [3, 19])
def test_zstd_bomb_allocates_little(level):
    encoder = zstandard.ZstdCompressor(level=level).compressobj()
    bomb = b"".join(encoder.compress(b"\0" * (1 << 20)) for _ in range(100)) + encoder.flush()

    assert _peak_bytes(bomb) < 4 * LIMIT


def test_zstd_window_is_bounded():
    with pytest.raises(TooLarge, match=r"^zstd window too large \(max 32MB\)$"):
        inflate(zstd_stream(TEXT, level=22), "", LIMIT)
    assert inflate(zstandard.compress(TEXT, level=22), "", LIMIT) == TEXT  # says how much it holds


@pytest.mark.usefixtures("gzip_engine")
def test_gzip_bomb_allocates_little():
    encoder = zlib.compressobj(wbits=31)
    bomb = b"".join(encoder.compress(b"\0" * (1 << 20)) for _ in range(100)) + encoder.flush()

    assert _peak_bytes(bomb) < 4 * LIMIT


def _peak_bytes(bomb: bytes) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(bomb, "", LIMIT)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

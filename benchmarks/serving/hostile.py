"""Uploads that mean no good: cut off, bombs, other kinds of files, lies about their length, bodies that dawdle."""

import asyncio
import io
import struct
import zlib
from collections import Counter

import numpy as np
from PIL import Image

from benchmarks.serving.client import HOST, Line

PATH = "/v1/models/part/score"
KINDS = ("truncated", "flipped", "bomb", "header", "wrong type", "form", "protocol", "lie", "slow", "no request")
_PATIENCE = 8.0


def head(length: int, kind: str = "image/png", path: str = PATH) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: {kind}\r\n"
        f"content-length: {length}\r\n\r\n"
    ).encode()


def image(draw: np.random.Generator) -> bytes:
    """A small image in one of the formats."""
    stream = io.BytesIO()
    pixels = draw.integers(0, 256, (*draw.integers(1, 40, 2), 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, str(draw.choice(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])))
    return stream.getvalue()


def bomb(draw: np.random.Generator) -> bytes:
    """A PNG whose header states many megapixels, and whose rows are zeros."""
    side = int(draw.integers(6_000, 30_000))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(10**6))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def request(kind: str, draw: np.random.Generator) -> list[bytes]:
    """What is written to the line, in pieces with pauses between."""
    body = image(draw)
    noise = draw.bytes(int(draw.integers(0, 3000)))
    if kind == "truncated":
        cut = body[: int(draw.integers(0, len(body)))]
        return [head(len(cut)) + cut]
    if kind in ("flipped", "header"):
        array = bytearray(body)
        reach = min(len(array), 64) if kind == "header" else len(array)
        for place in draw.integers(0, reach, 8):
            array[place] = int(draw.integers(0, 256))
        return [head(len(array)) + bytes(array)]
    if kind == "bomb":
        made = bomb(draw)
        return [head(len(made)) + made]
    if kind == "wrong type":
        named = str(
            draw.choice(["text/html", "application/json", "image/svg+xml", "application/octet-stream", "video/mp4"])
        )
        return [head(len(noise), named) + noise]
    if kind == "form":
        parts = (
            b'--x\r\ncontent-disposition: form-data; name=a; filename="../../a\x00"\r\n\r\n' + body + b"\r\n--x--\r\n"
        )
        cut = parts[: int(draw.integers(0, len(parts)))] + noise
        return [head(len(cut), "multipart/form-data; boundary=x") + cut]
    if kind == "protocol":
        text = str(
            draw.choice(
                [
                    '{"inputs":[{"name":"image","datatype":"UINT8","shape":[1,3,99999999,99999999],"data":[1]}]}',
                    '{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"data":["AAAA"]}]}',
                    '{"inputs":' + "[" * 5000,
                    '{"inputs":[{"name":"image","datatype":"UINT8","shape":[1,1,1,1],"data":[1e400]}]}',
                    '{"inputs":[{"name":"image","datatype":"UINT8","shape":[0,0,0,0],"data":[]}]}',
                ]
            )
        ).encode()
        return [head(len(text), "application/json", "/v2/models/part/infer") + text]
    if kind == "lie":
        stated = int(draw.choice([len(body) // 2, len(body) + 100, 2**40, 0]))
        return [head(stated) + body]
    if kind == "slow":
        return [head(len(body)), *[body[i : i + 1] for i in range(20)]]
    return [bytes(draw.integers(0, 256, 200, dtype=np.uint8)) + b"\r\n\r\n"]


async def attack(port: int, count: int, at_once: int = 32, slow_share: float = 0.02) -> dict[str, Counter]:
    """Send so many, and count what each kind was answered with (``closed``: the line was closed without a word)."""
    found: dict[str, Counter] = {kind: Counter() for kind in KINDS}
    waiting = iter(range(count))

    async def one() -> None:
        for number in waiting:
            draw = np.random.default_rng(number)
            kind = str(draw.choice([each for each in KINDS if each != "slow"]))
            if draw.random() < slow_share:
                kind = "slow"
            found[kind][await send(port, request(kind, draw))] += 1

    await asyncio.gather(*(one() for _ in range(at_once)))
    return found


async def send(port: int, pieces: list[bytes]) -> str:
    line = Line(port)
    reader, writer = await line._opened()
    try:
        for i, piece in enumerate(pieces):
            if i:
                await asyncio.sleep(0.2)
            writer.write(piece)
        status, _ = await asyncio.wait_for(line._answer(reader), _PATIENCE)
        return str(status)
    except (OSError, EOFError):
        return "closed"
    except TimeoutError:
        return "silent"
    finally:
        line.close()

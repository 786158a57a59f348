"""What asks the service: HTTP/1.1 over asyncio's streams, which take little of the machine."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

HOST = "127.0.0.1"


class Line:
    """One connection, opened anew where it was closed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.away = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, path: str, body: bytes = b"", method: str = "POST", kind: str = "image/png"
    ) -> tuple[int, bytes]:
        """Status and body of an answer; raises `OSError` or `EOFError` where none comes."""
        reader, writer = await self._opened()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        try:
            return await self._answer(reader)
        except (OSError, EOFError):
            self.close()
            raise

    async def raw(self, data: bytes, seconds: float) -> int | None:
        """The status that bytes are answered with; ``None``: the line was closed."""
        reader, writer = await self._opened()
        try:
            writer.write(data)
            status, _ = await asyncio.wait_for(self._answer(reader), seconds)
            return status
        except (OSError, EOFError):
            return None
        finally:
            self.close()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None or self._streams[0].at_eof():
            self._streams = await asyncio.open_connection(HOST, self.port)
        return self._streams

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        away = re.search(rb"retry-after: (\d+)", head)
        self.away = int(away[1]) if away else 0
        length = re.search(rb"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if b"connection: close" in head or length is None:
            self.close()
        return int(head.split()[1]), body


class Service:
    """`dracones serve` as a process of its own."""

    def __init__(self, model: Path, *options: str, log: Path) -> None:
        self.log = log.open("w")
        words = [sys.executable, "-m", "dracones", "serve", f"part={model}", "--port", "0", *options]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = self.process.stderr.readline()
        found = re.search(r"at http://127\.0\.0\.1:(\d+)/", said)
        if found is None:
            raise RuntimeError(f"the service did not start: {said}{self.process.stderr.read()}")
        self.port = int(found[1])

    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(300)
        assert self.process.stderr is not None
        self.log.write(self.process.stderr.read())
        self.log.close()
        return code

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


async def crowd(
    port: int, clients: int, seconds: float, bodies: list[bytes], *, patient: bool = True
) -> dict[str, list]:
    """So many clients ask as fast as they are answered; who is told to stay away does for about so long.

    Returns:
        ``status``, ``seconds`` and ``body`` of each answer, and ``broken``: what no answer came to.
    """
    until = time.monotonic() + seconds
    found: dict[str, list] = {"status": [], "seconds": [], "body": [], "broken": []}

    async def one(number: int) -> None:
        line, turn = Line(port), number
        while time.monotonic() < until:
            begun = time.monotonic()
            try:
                status, body = await line.ask("/v1/models/part/score", bodies[turn % len(bodies)])
            except (OSError, EOFError) as error:
                found["broken"].append(type(error).__name__)
                if not patient:
                    return
                await asyncio.sleep(0.1)
                continue
            found["status"].append(status)
            found["seconds"].append(time.monotonic() - begun)
            found["body"].append(body)
            turn += clients
            if line.away:
                await asyncio.sleep(line.away * (0.5 + random.random()))
        line.close()

    await asyncio.gather(*(one(number) for number in range(clients)))
    return found

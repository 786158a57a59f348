"""The service under load, under attack, while models change, and at its end; on this machine alone.

python -m benchmarks.serving.measure              # everything, about 6 minutes; writes results.json and README.md
python -m benchmarks.serving.measure --only load
"""

import argparse
import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import records
from benchmarks.provenance import provenance
from benchmarks.serving.client import Line, Service, crowd
from benchmarks.serving.hostile import attack

HERE = Path(__file__).parent
DEADLINE = 2.0
PARTS = ("load", "batching", "hostile", "sigterm", "reload", "schema")
_SIZE = 32


def pictures(count: int, seed: int) -> np.ndarray:
    """Gravel of `_SIZE` pixels, as bytes ``[N, H, W, C]``."""
    from dracones.images import open_images

    images = open_images(f"builtin:gravel?count={count}&size={_SIZE}&seed={seed}").to_tensor()
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy()


def encoded(images: np.ndarray) -> list[bytes]:
    bodies = []
    for each in images:
        stream = io.BytesIO()
        Image.fromarray(each.squeeze()).save(stream, "PNG")
        bodies.append(stream.getvalue())
    return bodies


def models(folder: Path) -> tuple[Path, Path]:
    """A small Glow, calibrated twice: two files that score alike and differ."""
    import dracones

    images = pictures(400, 0)
    detector = dracones.create("glow", epochs=1, density={"steps": 4, "hidden": 32}, rule="likelihood")
    detector.fit(images[:200])
    found = []
    for name, rate in (("one", 0.05), ("two", 0.02)):
        found.append(detector.calibrate(images[200:], false_alarm_rate=rate).save(folder / f"{name}.safetensors"))
    return found[0], found[1]


def load(model: Path, bodies: list[bytes], work: Path, seconds: float) -> dict[str, Any]:
    """200 clients for a minute."""
    log = work / "load.jsonl"
    with Service(model, "--deadline", str(DEADLINE), "--audit", str(log), log=work / "load.log") as service:
        asyncio.run(crowd(service.port, 32, 5, bodies))  # what is made once is made
        time.sleep(1)
        warmed_up = len(log.read_text().splitlines())
        before, cpu = service.memory(), service.cpu()
        found = asyncio.run(crowd(service.port, 200, seconds, bodies))
        after, cpu = service.memory(), service.cpu() - cpu
        code = service.stop()
    taken = sorted(s for s, status in zip(found["seconds"], found["status"], strict=True) if status == 200)
    inside = sorted(json.loads(line)["latency"] for line in log.read_text().splitlines()[warmed_up:])
    return {
        "clients": 200,
        "seconds": seconds,
        "statuses": counted(found["status"]),
        "broken": counted(found["broken"]),
        "accepted_per_second": len(taken) / seconds,
        "p50_seconds": taken[len(taken) // 2],
        "p99_seconds": taken[int(0.99 * len(taken))],
        "longest_seconds": taken[-1],
        "p99_seconds_inside": inside[int(0.99 * len(inside))],
        "deadline_seconds": DEADLINE,
        "memory_before_mb": before,
        "memory_growth_mb": after - before,
        "server_cpu_seconds": cpu,
        "exit_code": code,
    }


def batching(model: Path, bodies: list[bytes], work: Path, seconds: float) -> dict[str, Any]:
    """32 clients, with batches and without, in turn."""
    rounds: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    with (
        Service(model, "--max-batch", "32", "--deadline", "10", log=work / "with.log") as joined,
        Service(model, "--max-batch", "1", "--deadline", "10", log=work / "without.log") as single,
    ):
        for service in (joined, single):
            asyncio.run(crowd(service.port, 32, 2, bodies))
        for _ in range(3):
            for name, service in (("with", joined), ("without", single)):
                cpu = service.cpu()
                found = asyncio.run(crowd(service.port, 32, seconds, bodies))
                good = found["status"].count(200)
                rounds[name].append(
                    {"per_second": good / seconds, "cpu_ms_an_image": 1000 * (service.cpu() - cpu) / good}
                )
        joined.stop()
        single.stop()
    wall = [a["per_second"] / b["per_second"] for a, b in zip(rounds["with"], rounds["without"], strict=True)]
    cpu = [b["cpu_ms_an_image"] / a["cpu_ms_an_image"] for a, b in zip(rounds["with"], rounds["without"], strict=True)]
    return {
        "clients": 32,
        **rounds,
        "times_as_fast": median(wall),
        "times_as_fast_rounds": wall,
        "times_less_cpu": median(cpu),
    }


def hostile(model: Path, bodies: list[bytes], work: Path, count: int) -> dict[str, Any]:
    """Bad uploads, and an honest one at the end."""
    with Service(model, log=work / "hostile.log") as service:
        asyncio.run(crowd(service.port, 8, 2, bodies))
        before = service.memory()
        found = asyncio.run(attack(service.port, count))
        status, _ = asyncio.run(_after(service.port, bodies[0]))
        inside = asyncio.run(_metric(service.port, "dracones_inside"))
        memory = service.memory() - before
        code = service.stop()
    everything = sum(found.values(), Counter())
    return {
        "uploads": sum(everything.values()),
        "answers": {kind: dict(sorted(counts.items())) for kind, counts in found.items()},
        "server_errors": sum(n for status, n in everything.items() if status.startswith("5") and status != "503"),
        "deadline_missed": everything["503"],
        "silent": everything["silent"],
        "honest_afterwards": status,
        "inside_afterwards": inside,
        "memory_growth_mb": memory,
        "exit_code": code,
    }


async def _after(port: int, body: bytes) -> tuple[int, bytes]:
    await asyncio.sleep(3)  # slow bodies are cut off
    return await Line(port).ask("/v1/models/part/score", body)


async def _metric(port: int, name: str) -> float:
    _, text = await Line(port).ask("/metrics", method="GET")
    return next(float(line.split()[1]) for line in text.decode().splitlines() if line.startswith(f"{name} "))


def sigterm(model: Path, bodies: list[bytes], work: Path, times: int) -> dict[str, Any]:
    """SIGTERM among 32 clients: every image in the audit log has its answer at a client."""
    rounds = []
    for number in range(times):
        log = work / f"audit{number}.jsonl"
        with Service(model, "--audit", str(log), "--drain", "0.5", log=work / f"term{number}.log") as service:

            async def both(service: Service = service) -> dict[str, list]:
                asked = asyncio.create_task(crowd(service.port, 32, 6, bodies, patient=False))
                await asyncio.sleep(2)
                service.process.send_signal(signal.SIGTERM)
                return await asked

            found = asyncio.run(both())
            code = service.stop()
        scored = len(log.read_text().splitlines())
        answered = found["status"].count(200)
        rounds.append(
            {
                "scored": scored,
                "answered": answered,
                "lost": scored - answered,
                "statuses": counted(found["status"]),
                "turned_away": counted(found["broken"]),
                "exit_code": code,
            }
        )
    return {"rounds": rounds, "lost": sum(each["lost"] for each in rounds)}


def reload(one: Path, two: Path, bodies: list[bytes], work: Path, seconds: float) -> dict[str, Any]:
    """Two models take turns under one name, and now and then a broken one, while 16 clients ask."""
    served = work / "part.safetensors"
    shutil.copyfile(one, served)
    broken = work / "broken"
    broken.write_bytes(one.read_bytes()[:-1000])
    with Service(served, "--reload-every", "0.2", "--deadline", "5", log=work / "reload.log") as service:

        async def change() -> int:
            turns, until = 0, time.monotonic() + seconds
            while time.monotonic() < until - 2:
                beside = work / "beside"
                shutil.copyfile((two, broken, one)[turns % 3], beside)
                beside.replace(served)
                turns += 1
                await asyncio.sleep(1)
            return turns

        async def both() -> tuple[dict[str, list], int]:
            found, turns = await asyncio.gather(crowd(service.port, 16, seconds, bodies), change())
            return found, turns

        found, turns = asyncio.run(both())
        swapped = asyncio.run(_metric(service.port, 'dracones_reloads_total{model="part",outcome="swapped"}'))
        refused = asyncio.run(_metric(service.port, 'dracones_reloads_total{model="part",outcome="refused"}'))
        code = service.stop()
    answers = [json.loads(body) for body, status in zip(found["body"], found["status"], strict=True) if status == 200]
    return {
        "changes": turns,
        "swapped": swapped,
        "refused_broken": refused,
        "statuses": counted(found["status"]),
        "broken": counted(found["broken"]),
        "models_that_answered": len({each["sha256"] for each in answers}),
        "exit_code": code,
    }


def schema(model: Path, bodies: list[bytes], work: Path, examples: int) -> dict[str, Any]:
    """schemathesis against the service's own description of itself."""
    del bodies
    # A schema can say "bytes", not "an image": that most bytes are refused is no finding.
    config = work / "schemathesis.toml"
    statuses = ["2xx", "3xx", "400", "401", "403", "404", "409", "413", "422", "429"]
    config.write_text(f"[checks]\npositive_data_acceptance.expected-statuses = {json.dumps(statuses)}\n")
    with Service(
        model, "--confirmed", str(work / "confirmed"), "--max-requests", "64", log=work / "schema.log"
    ) as service:
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "schemathesis"),
                "--config-file",
                str(config),
                "run",
                f"http://127.0.0.1:{service.port}/openapi.json",
                "--max-examples",
                str(examples),
                "--seed",
                "0",
                "--workers",
                "1",
                "--no-color",
            ],
            capture_output=True,
            text=True,
            cwd=work,
            check=False,
        )
        code = service.stop()
    if done.returncode:
        print(done.stdout[-6000:])
    summary = [line.strip() for line in done.stdout.splitlines() if " generated, " in line]
    return {
        "examples_an_operation": examples,
        "found_nothing": done.returncode == 0,
        "summary": summary,
        "exit_code": code,
    }


def counted(values: list[Any]) -> dict[str, int]:
    return {str(key): count for key, count in sorted(Counter(values).items())}


def page(record: dict[str, Any]) -> str:
    """README.md, from the record alone."""
    rows = [
        *_load_rows(record["load"]),
        _batching_row(record["batching"]),
        _hostile_row(record["hostile"]),
        _sigterm_row(record["sigterm"]),
        _reload_row(record["reload"]),
        ("schemathesis finds nothing", "; ".join(record["schema"]["summary"]), record["schema"]["found_nothing"]),
    ]
    answers = record["hostile"]["answers"].items()
    lines = [
        "# The service, measured",
        "",
        "One process of `dracones serve` with a small Glow (32 pixels, gray, one thread), and its clients beside it on",
        "the same machine, over 127.0.0.1. Where other work shares the machine (its load: below), seconds are longer.",
        "",
        "| asked | measured | met |",
        "|---|---|---|",
        *[f"| {asked} | {found} | {'yes' if met else '**no**'} |" for asked, found, met in rows],
        "",
        "What each kind of bad upload was answered with; `closed`: the line was closed without an answer, as on a",
        "client that still sends when its time is over.",
        "",
        "| kind | answers |",
        "|---|---|",
        *[f"| {kind} | {_listed(counts)} |" for kind, counts in answers],
        "",
        "schemathesis takes 4xx for an answer to bytes that are no image: a schema cannot say what an image is.",
        "",
        "    python -m benchmarks.serving.measure",
        "",
        "| part | commit | date | load of the machine at its start |",
        "|---|---|---|---|",
        *[
            f"| {name} | {part['commit'][:10]} | {part['date']} | {part.get('load_at_start', 'not kept')} |"
            for name, part in ((name, record[name]) for name in PARTS)
        ],
        "",
        f"{record['machine']}, torch {record['torch']}.",
    ]
    return "\n".join(lines) + "\n"


Row = tuple[str, str, bool]


def _load_rows(found: dict[str, Any]) -> list[Row]:
    stray = sum(n for status, n in found["statuses"].items() if status not in ("200", "429", "503"))
    stray += sum(found["broken"].values())
    deadline = found["deadline_seconds"]
    return [
        (
            f"{found['clients']} clients for {found['seconds']:.0f} s: 99 % of the accepted are answered within the "
            f"deadline of {deadline:.0f} s, which begins at admission",
            f"{found['p99_seconds_inside']:.2f} s ({found['accepted_per_second']:.0f} accepted a second)",
            found["p99_seconds_inside"] <= deadline,
        ),
        (
            "the same as the clients see it: waiting for a processor on both sides included",
            f"{found['p99_seconds']:.2f} s (median {found['p50_seconds']:.2f} s)",
            found["p99_seconds"] <= deadline,
        ),
        (
            "no answer but 200, 429 (refused), 503 (deadline)",
            f"{stray} others; {_listed(found['statuses'])}",
            stray == 0,
        ),
        (
            "resident memory grows by at most 200 MB",
            f"{found['memory_growth_mb']:.0f} MB",
            found["memory_growth_mb"] <= 200,
        ),
    ]


def _batching_row(found: dict[str, Any]) -> Row:
    rounds = ", ".join(f"{each:.2f}" for each in found["times_as_fast_rounds"])
    return (
        f"batches are at least 1.5 times as fast as none, {found['clients']} clients",
        f"{found['times_as_fast']:.2f} times (rounds {rounds}); {found['times_less_cpu']:.2f} times less CPU an image",
        found["times_as_fast"] >= 1.5,
    )


def _hostile_row(found: dict[str, Any]) -> Row:
    return (
        "10,000 bad uploads: no crash, no error of the service",
        f"{found['uploads']:,} sent, {found['server_errors']} errors, {found['silent']} unanswered, "
        f"{found['memory_growth_mb']:.0f} MB more; an honest one after them: {found['honest_afterwards']}",
        found["uploads"] >= 10_000
        and (found["server_errors"], found["silent"], found["honest_afterwards"], found["exit_code"]) == (0, 0, 200, 0),
    )


def _sigterm_row(found: dict[str, Any]) -> Row:
    codes = sorted({each["exit_code"] for each in found["rounds"]})
    return (
        f"SIGTERM loses no accepted request, {len(found['rounds'])} times among 32 clients",
        f"{found['lost']} of {sum(each['scored'] for each in found['rounds']):,} lost; exit codes {codes}",
        found["lost"] == 0 and codes == [0],
    )


def _reload_row(found: dict[str, Any]) -> Row:
    return (
        "changing the model under load fails no request, 16 clients",
        f"{found['swapped']:.0f} swapped and {found['refused_broken']:.0f} broken files refused; "
        f"{_listed(found['statuses'])}",
        set(found["statuses"]) <= {"200", "429"} and not found["broken"] and found["models_that_answered"] == 2,
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} x {status}" for status, count in counts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=60, help="of the load")
    parser.add_argument("--uploads", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=100, help="of schemathesis, an operation")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        one, two = models(work)
        bodies = encoded(pictures(64, 1))
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "load": lambda: load(one, bodies, work, arguments.seconds),
            "batching": lambda: batching(one, bodies, work, 8),
            "hostile": lambda: hostile(one, bodies, work, arguments.uploads),
            "sigterm": lambda: sigterm(one, bodies, work, 5),
            "reload": lambda: reload(one, two, bodies, work, 30),
            "schema": lambda: schema(one, bodies, work, arguments.examples),
        }
        for name, part in parts.items():
            if arguments.only in (None, name):
                stamp = provenance()
                found = {**part(), **{key: stamp[key] for key in ("commit", "date", "load_at_start")}}
                print(name, json.dumps(found, indent=1), flush=True)
                keep(name, found, stamp)


def keep(name: str, found: dict[str, Any], stamp: dict[str, Any]) -> None:
    """Write one part down, and the page once all parts are there."""
    kept = HERE / "results.json"
    record = {**(records.read(kept) if kept.exists() else {}), name: found, **stamp}
    records.write(kept, record)
    if set(PARTS) <= set(record):
        (HERE / "README.md").write_text(page(records.read(kept)))


if __name__ == "__main__":
    main()

"""Shards scored by actors on a Ray cluster; whichever of them dies, every shard is scored."""

import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dracones.distributed.shards import Shard, ShardScorer

_ANSWER_SECONDS = 5
_START_SECONDS = 120
_TRIES = 3

MakeScorer = Callable[[Path], ShardScorer]
"""From a model's file to what scores shards; sent to every actor, so nothing but names of functions may be inside."""


def on_ray(
    shards: Sequence[Shard], model: Path, make: MakeScorer, *, address: str, workers: int | None = None
) -> Iterator[tuple[Shard, Mapping[str, Any]]]:
    """Score shards on the actors of a cluster, one core each, and give each with its counts as it is done.

    The model goes to the actors by itself; images and tables have to be on a disk that all machines see. An actor
    reads, decodes and scores; it takes no core for readers beside it. A shard whose actor dies is given to another;
    one that kills three is given up.

    Args:
        shards: what to score.
        model: the file.
        make: builds the scorer where the actor runs.
        address: ``local`` for this machine alone, ``auto`` or ``host:port`` of a cluster.
        workers: actors; if not given, all cores of this machine, or all but one of the cluster's.

    Raises:
        ImportError: ray is not installed.
        ConnectionError: nothing answers at the address, or Ray does not start here.
        RuntimeError: no core becomes free, or a shard's actors keep dying.
    """
    if not shards:
        return
    ray = _connected(address, workers)
    try:
        count = min(workers or _cores(ray, address), len(shards))
        actor_class = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        data = ray.put(model.read_bytes())
        pool = _Pool(ray, lambda: actor_class.remote(model.name, data, make), count)
        yield from pool.run(shards)
    finally:
        ray.shutdown()


class _Actor:
    """Holds one detector in a process of its own."""

    def __init__(self, name: str, data: bytes, make: MakeScorer) -> None:
        self._folder = TemporaryDirectory(prefix="dracones")
        path = Path(self._folder.name) / name
        path.write_bytes(data)
        self._scorer = make(path)

    def ready(self) -> bool:
        """Whether the actor runs, as an answer."""
        return True

    def score(self, shard: Shard) -> dict[str, Any]:
        """As `ShardScorer.score`."""
        return self._scorer.score(shard)


class _Pool:
    """Actors with one shard each at a time."""

    def __init__(self, ray: Any, start: Callable[[], Any], count: int) -> None:
        self._ray, self._start = ray, start
        self._actors = [start() for _ in range(count)]

    def run(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Mapping[str, Any]]]:
        ray = self._ray
        self._wait_for_one()
        waiting, died = deque(shards), Counter[str]()
        working: dict[Any, tuple[Any, Shard]] = {}
        for actor in self._actors:
            self._give(actor, waiting, working)
        while working:
            (done, *_), _ = ray.wait(list(working), num_returns=1)
            actor, shard = working.pop(done)
            try:
                counts = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                # What the scoring itself raised (the disk, the model) is said as it would be without Ray.
                raise error.cause from None
            except ray.exceptions.RayError as error:
                died[shard.name] += 1
                if died[shard.name] == _TRIES:
                    raise RuntimeError(
                        f"{_TRIES} actors died over shard {shard.name}, the last because: {_first_line(error)}; the "
                        "same command goes on from what is done"
                    ) from error
                waiting.appendleft(shard)
                actor = self._start()
            else:
                yield shard, counts
            self._give(actor, waiting, working)

    def _wait_for_one(self) -> None:
        """Refuse to wait for ever on a cluster whose cores are all taken."""
        ray = self._ray
        pending = [actor.ready.remote() for actor in self._actors]
        ready, _ = ray.wait(pending, num_returns=1, timeout=_START_SECONDS)
        if not ready:
            raise RuntimeError(f"no core of the cluster became free within {_START_SECONDS} s; ask for fewer --workers")
        try:
            ray.get(ready[0])
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"no actor could be started: {_first_line(error)}") from error

    @staticmethod
    def _give(actor: Any, waiting: deque[Shard], working: dict[Any, tuple[Any, Shard]]) -> None:
        if waiting:
            shard = waiting.popleft()
            working[actor.score.remote(shard)] = (actor, shard)


def _connected(address: str, workers: int | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a run leaves the house
    try:
        import ray
    except ImportError as error:
        raise ImportError("--ray needs ray, which is not installed: pip install 'dracones[distributed]'") from error
    if address == "local":
        try:
            ray.init(
                address="local",
                num_cpus=workers or os.cpu_count(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray raises bare ones
            raise ConnectionError(f"Ray could not start on this machine: {_first_line(error)}") from error
        return ray
    _refuse_silence(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address}: {_first_line(error)}") from error
    return ray


def _refuse_silence(address: str) -> None:
    """Ray itself waits for minutes where nothing listens."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        if address != "auto":
            raise ConnectionError(f"--ray {address}: give local, auto, or host:port of a cluster's head")
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} within {_ANSWER_SECONDS} s ({error}); start one with `ray start "
            "--head`, or give --ray local"
        ) from error


def _cores(ray: Any, address: str) -> int:
    cores = int(ray.cluster_resources().get("CPU", 1))
    return cores if address == "local" else max(1, cores - 1)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

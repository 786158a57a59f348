"""Images of many requests scored together, by one thread a model."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from dracones.serving.decoding import Late

Answer = TypeVar("Answer")
_MEMORY = 0.8
_MAX_BATCH_BYTES = 2**26


@dataclass(eq=False)
class Job(Generic[Answer]):
    """One image that waits.

    Attributes:
        image: ``[H, W, C]``.
        wants_map: whether a heat map is asked for.
        deadline: by `time.monotonic`; past it the image leaves the queue unscored.
        group: the image's, where the calibration has groups.
        future: gets the answer, or `Late`.
    """

    image: NDArray[Any]
    wants_map: bool
    deadline: float
    group: str | None = None
    future: "asyncio.Future[Answer]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher(Generic[Answer]):
    """A queue and the one thread that scores from it: whatever waits is scored together, up to `max_batch`.

    While requests are on their way (`coming`), a batch that has room waits for them, `max_wait` seconds at most; one
    client alone never waits.

    Args:
        name: of the model, for the thread.
        score: jobs and whether maps are wanted, to one answer or exception a job.
        coming: how many requests were let in and have not brought their images yet.
        max_batch: images scored together.
        max_wait: seconds.
        observe: is told images and seconds of each batch.
    """

    def __init__(
        self,
        name: str,
        score: "Callable[[Sequence[Job[Answer]], bool], Sequence[Answer | Exception]]",
        *,
        coming: Callable[[], int],
        max_batch: int,
        max_wait: float,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self._score, self._coming, self._observe = score, coming, observe
        self.max_batch, self.max_wait = max_batch, max_wait
        self._jobs: deque[Job[Answer]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._busy_until_about = 0.0
        self._per_image = 0.0
        self._thread = threading.Thread(target=self._run, name=f"score-{name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is there to score."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return len(self._jobs)

    def learn(self, count: int, seconds: float) -> None:
        """Take note of what a batch took."""
        value = seconds / count
        self._per_image = _MEMORY * self._per_image + (1 - _MEMORY) * value if self._per_image else value

    def seconds_until_answered(self, more: int) -> float:
        """About how long `more` images would wait and take, by what the last batches took; 0 where nothing waits.

        What was measured may be stale, so an idle house always takes a request and measures anew.
        """
        left = max(0.0, self._busy_until_about - time.monotonic())
        if not self._jobs and not left and more == 1:
            return 0.0
        return left + (len(self._jobs) + more) * self._per_image

    def submit(self, jobs: Sequence[Job[Answer]]) -> None:
        """Queue images; their futures belong to the running event loop."""
        with self._changed:
            self._jobs.extend(jobs)
            self._changed.notify()

    def close(self) -> None:
        """Score what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            late, timely = _split(batch, time.monotonic())
            _resolve([(job, Late()) for job in late])
            if timely:
                self._answer(timely)
            del batch, late, timely  # no image outlives its answer

    def _next(self) -> "list[Job[Answer]] | None":
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            until = time.monotonic() + self.max_wait
            while len(self._jobs) < self.max_batch and not self._closed and self._coming():
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            if not self._jobs:
                return None
            batch = [self._jobs.popleft()]
            held = batch[0].image.nbytes
            while self._jobs and len(batch) < self.max_batch:
                held += self._jobs[0].image.nbytes
                if held > _MAX_BATCH_BYTES:
                    break
                batch.append(self._jobs.popleft())
            return batch

    def _answer(self, batch: "list[Job[Answer]]") -> None:
        begun = time.monotonic()
        self._busy_until_about = begun + self._per_image * len(batch)
        found: Sequence[Answer | Exception]
        try:
            found = self._score(batch, any(job.wants_map for job in batch))
        except Exception as error:  # whatever a model raises is its requests' answer, and the thread goes on
            found = [error] * len(batch)
        seconds = time.monotonic() - begun
        self.learn(len(batch), seconds)
        if self._observe is not None:
            self._observe(len(batch), seconds)
        _resolve(list(zip(batch, found, strict=True)))


def _split(batch: "list[Job[Answer]]", now: float) -> "tuple[list[Job[Answer]], list[Job[Answer]]]":
    """Those past their deadline, and the others; who left is in neither."""
    still = [job for job in batch if not job.future.done()]
    return [job for job in still if job.deadline < now], [job for job in still if job.deadline >= now]


def _resolve(pairs: "Sequence[tuple[Job[Answer], Answer | Exception]]") -> None:
    """Hand answers to the event loop that waits for them, which may be gone."""

    def settle() -> None:
        for job, answer in pairs:
            if job.future.done():
                continue
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)

    if pairs:
        try:
            pairs[0][0].future.get_loop().call_soon_threadsafe(settle)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

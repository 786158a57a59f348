"""Images read and scored as they come: blocks of a collection, in order, on as many cores as torch computes with."""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from dracones.detectors.pipeline import Pipeline
from dracones.detectors.tiling import score_in_tiles
from dracones.images import Batch, Block, ImageCollection, Tiling, UnreadableImage, reading_threads
from dracones.images.prefetch import in_order, runs
from dracones.methods import Scores
from dracones.training import Progress

Result = TypeVar("Result")


class NotANumber(ValueError):  # noqa: N818 (reads as what it says)
    """A method gave NaN for an image."""


class Scorer(NamedTuple):
    """A pipeline in eval mode, and how images are cut before it; ``None``: not at all."""

    pipeline: Pipeline
    tiling: Tiling | None


Finish = Callable[[Scorer, Batch, Scores], list[Result]]
"""What becomes of a block's scores, one result an image; called in the thread that scored it."""


class Done(NamedTuple):
    """A block that is done: its places, the results of what was read, and what could not be."""

    places: range
    indices: list[int]
    results: list[Any]
    unread: list[tuple[int, UnreadableImage]]


def score_blocks(
    scorer: Scorer,
    images: ImageCollection,
    places: range,
    finish: Finish[Result],
    *,
    batch_size: int,
    progress: Progress | None,
) -> Iterator[Done]:
    """Every block of ``images`` at ``places``, in order; a few are in memory at any time.

    A block's scores follow from its images alone, whatever was scored before it or beside it: who begins anew at a
    block gets the bits of an undisturbed run. On a CPU each thread reads, scores and finishes whole blocks, with one
    core each: small networks gain nothing from several cores an operation, and wait for them busily.
    """
    # A tiled image fills its own batches with tiles; images may then differ in size.
    size = batch_size if scorer.tiling is None else 1
    threads = reading_threads()
    if progress is not None:
        progress.start(places.stop, "scoring")
        progress.advance(places.start)
    try:
        blocks = runs(places.stop, size, places.start)
        if scorer.pipeline.method.device.type == "cpu" and scorer.pipeline.method.scores_in_threads:
            done = _scored_in_threads(scorer, images, finish, batch_size, blocks, threads)
        else:
            done = _read_in_threads(scorer, images, finish, batch_size, blocks, threads)
        for block in done:
            yield block
            if progress is not None:
                progress.advance(len(block.places))
    finally:
        if progress is not None:
            progress.finish()


def _scored_in_threads(
    scorer: Scorer,
    images: ImageCollection,
    finish: Finish[Result],
    batch_size: int,
    blocks: Iterator[range],
    threads: int,
) -> Iterator[Done]:
    own = threading.local()

    def work(places: range) -> Done:
        if threads and not hasattr(own, "scorer"):
            torch.set_num_threads(1)
            own.scorer = scorer._replace(pipeline=twin(scorer.pipeline))
        mine = own.scorer if threads else scorer
        return _score(mine, images, finish, batch_size, places, images.read_block(places))

    with _threads_as_found():
        yield from in_order(work, blocks, workers=threads, ahead=threads + 1)


def _read_in_threads(
    scorer: Scorer,
    images: ImageCollection,
    finish: Finish[Result],
    batch_size: int,
    blocks: Iterator[range],
    threads: int,
) -> Iterator[Done]:
    def read(places: range) -> tuple[range, Block]:
        return places, images.read_block(places)

    for places, block in in_order(read, blocks, workers=threads, ahead=threads + 1):
        yield _score(scorer, images, finish, batch_size, places, block)


def _score(
    scorer: Scorer,
    images: ImageCollection,
    finish: Finish[Result],
    batch_size: int,
    places: range,
    block: Block,
) -> Done:
    if block.batch is None:
        return Done(places, [], [], block.unread)
    try:
        scores = score_batch(scorer, block.batch.images, batch_size)
    except NotANumber as error:
        raise NotANumber(f"{error}; among {', '.join(block.batch.names[:5])} of {images.name_of_source}") from None
    return Done(places, block.batch.indices.tolist(), finish(scorer, block.batch, scores), block.unread)


@torch.no_grad()
def score_batch(scorer: Scorer, images: Tensor, batch_size: int = 32) -> Scores:
    """Scores of one batch of treated images, without gradient tracking.

    Raises:
        ValueError: a score that is not a number; a sum of anything with NaN has no order.
    """
    method = scorer.pipeline.method
    if scorer.tiling is not None:
        scores = score_in_tiles(method, images[0], scorer.tiling, batch_size)
    else:
        images = images.to(method.device)
        scores = method(images, method.host_statistics(images))
    bad = int(torch.isnan(scores.image).sum())
    if bad:
        method.explain_nan(images)
        raise NotANumber(
            f"{method.info.name} gave {bad} NaN score(s) in a batch of {len(images)}; its weights or statistics "
            "are not finite: fit again with a smaller learning rate, or check the images for constant channels"
        )
    return scores


def twin(pipeline: Pipeline) -> Pipeline:
    """The same pipeline for another thread: what a forward pass may note on its modules is its own, tensors are not."""
    shared: dict[int, object] = {}
    for module in pipeline.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                shared[id(tensor)] = tensor
    return copy.deepcopy(pipeline, shared)


@contextmanager
def _threads_as_found() -> Iterator[None]:
    # What a thread sets is its own number and, for the mathematics library beneath, everybody's.
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""One table of scores, written as the images are read, and taken up where a kill left it."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

from dracones.calibration.prediction import Verdict
from dracones.distributed.parts import ROWS_SO_FAR, PartedJournal
from dracones.distributed.processes import Helpers
from dracones.distributed.rows import COLUMNS, Tally, row_of
from dracones.files.journal import Journal
from dracones.images.limits import Skipped, reasons
from dracones.images.prefetch import runs

Answer = Verdict | Skipped
Answering = Callable[[range], list[Answer]]
"""From places of a collection to their answers."""

_UNFINISHED = ".unfinished"


class Target(NamedTuple):
    """What a table becomes: a file, or a folder of Parquet files.

    Example:
        >>> Target.of("scores.csv").journal.name, Target.of("scores.parquet/").journal.parts[-2:]
        ('scores.csv.unfinished', ('scores.parquet.unfinished', '_rows'))
    """

    path: Path
    in_parts: bool = False

    @classmethod
    def of(cls, text: str) -> Self:
        """As it was named: a folder by the slash at its end, or by being one."""
        path = Path(text)
        return cls(path, text.endswith(("/", os.sep)) or path.is_dir())

    @property
    def journal(self) -> Path:
        """Where the rows lie until the table is whole."""
        beside = self.path.with_name(self.path.name + _UNFINISHED)
        return beside / ROWS_SO_FAR if self.in_parts else beside

    def __str__(self) -> str:
        return f"{self.path}/" if self.in_parts else str(self.path)


@contextmanager
def rows_kept(output: Target | None, facts: Mapping[str, Any], *, resume: bool) -> Iterator[Journal]:
    """A journal for the rows of a table: beside it, where it outlives the process; in passing where there is none.

    Raises:
        ValueError: a journal to be resumed that belongs to something else.
        KeyboardInterrupt: as it came, saying what is kept.
    """
    with ExitStack() as stack:
        if output is None:
            path = Path(stack.enter_context(TemporaryDirectory(prefix="dracones"))) / "rows"
        else:
            path = output.journal
        kind = PartedJournal if output is not None and output.in_parts else Journal
        journal = stack.enter_context(kind.resume(path, facts) if resume else kind.begin(path, facts))
        try:
            yield journal
        except KeyboardInterrupt:
            kept = "" if output is None else f"; {journal.count} rows are kept in {path}, --resume goes on from them"
            raise KeyboardInterrupt(f"stopped{kept}") from None


def place(journal: Journal, output: Target) -> None:
    """Write the table, whole or not at all, and let the journal go.

    Raises:
        OSError: the disk refuses; the journal stays, and so does a table that was there before.
    """
    from dracones.report import write_rows

    try:
        if isinstance(journal, PartedJournal):
            journal.place(output.path)
            return
        write_rows(output.path, COLUMNS, journal.rows())
    except OSError as error:
        raise OSError(
            f"{error}; all rows are whole in {journal.path}, and --resume writes the table from them"
        ) from error
    journal.remove()


def digest_of(model: Path) -> str:
    """A hash of a model's file."""
    with model.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts_of(model: Path, images: Any, **options: Any) -> dict[str, Any]:
    """What scores belong to: the model, the list of images, and whatever else decides a row."""
    return {
        "journal": 1,
        "model": digest_of(model),
        "images": images.name_of_source,
        "count": len(images),
        "names": images.names_digest(),
        **options,
    }


def answering(detector: Any, images: Any, *, batch_size: int, groups: Any = None) -> Answering:
    """A block's answers, as a stream of the whole gives them; what each of several processes does."""
    grouped = {} if groups is None else {"groups": groups}  # an exported file knows none

    def answer(places: range) -> list[Answer]:
        blocks = detector.stream(images, batch_size=batch_size, start=places.start, stop=places.stop, **grouped)
        return list(chain.from_iterable(blocks))

    return answer


def fill(
    detector: Any,
    images: Any,
    journal: Journal | None,
    *,
    batch_size: int,
    groups: Any = None,
    keep_map: Callable[[str, Any], None] | None = None,
    helpers: Helpers[range, list[Answer]] | None = None,
    progress: Any = None,
) -> Tally:
    """Score ``images`` and write each block's rows at once, going on from those that the journal holds.

    Args:
        detector: fitted, or an exported file.
        images: as the detector's ``adopt`` gives them; what was passed over when they were opened gets rows at the end.
        journal: where rows go; ``None`` only counts them.
        batch_size: images scored together.
        groups: each image's group, for a detector whose calibration has groups; by default as it was told there.
        keep_map: is handed each image's name and heat map.
        helpers: processes that score beside this one, where no map is kept.
        progress: is told how far the scoring is.

    Raises:
        ValueError: of images there are, none can be read.
        OSError: the disk refuses; the rows of before are whole.
    """
    tally, beside, start = Tally(), images.skipped, 0
    if journal is not None and journal.count:
        # A block is scored as a whole: one that was cut off begins anew, so that rows are those of an undisturbed run.
        if journal.count < len(images):
            journal.keep(journal.count // batch_size * batch_size)
        start = min(journal.count, len(images))
        for row in journal.rows():
            tally.add(row)
        beside = beside[journal.count - start :]
    grouped = {} if groups is None else {"groups": groups}  # an exported file knows none
    answers = detector.stream(
        images, batch_size=batch_size, maps=keep_map is not None, progress=progress, start=start, **grouped
    )
    if helpers is not None:
        # The stream above was asked for all the same: it has refused groups that are not calibrated.
        own = answering(detector, images, batch_size=batch_size, groups=groups)
        answers = _watched(helpers.share(runs(len(images), batch_size, start), own), progress, start, len(images))
    for block in chain(answers, [beside]):
        rows = [row_of(answer) for answer in block]
        if journal is not None:
            journal.append(rows)
        for row in rows:
            tally.add(row)
        for answer in block:
            if keep_map is not None and isinstance(answer, Verdict) and answer.map is not None:
                keep_map(answer.path, answer.map)
    if tally.scored == 0 and len(images):
        if journal is not None:
            journal.remove()  # there is nothing to go on from
        raise ValueError(
            f"none of the {len(images)} images of {images.name_of_source} can be read: {reasons(tally.skipped)}"
        )
    return tally


def _watched(answers: Iterator[list[Answer]], progress: Any, start: int, end: int) -> Iterator[list[Answer]]:
    """The same blocks, told as they come."""
    if progress is None:
        yield from answers
        return
    progress.start(end, "scoring")
    progress.advance(start)
    try:
        for block in answers:
            yield block
            progress.advance(len(block))
    finally:
        progress.finish()

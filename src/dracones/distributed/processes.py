"""Work shared out among processes of this machine, handed back in order; whichever of them dies, all of it is done."""

import multiprocessing
import pickle
import signal
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AT_HAND = 2
"""Items a helper holds: the second saves it the wait for this process's next look."""
_AHEAD = 16
"""Results, for each process, that may wait for the one whose turn it is: what bounds memory."""
_TRIES = 3


class _Outcome(NamedTuple):
    """What came of an item."""

    result: Any
    error: Exception | None = None


class Helpers(Generic[Item, Result]):
    """Processes beside this one that do the same work, a core each.

    This process works too, from the first item on: where a core is free, what a helper needs to start (libraries, the
    model) costs no time. A helper that dies is replaced and its items are given out again; an item over which three
    died ends the work. Helpers end where their pipe does: a parent that is killed leaves none behind.

    Args:
        make: builds the work in a helper; sent there, so nothing but names of functions and plain values may be inside.
        count: helpers.
        name_of: how an error calls an item.

    Example:
        >>> with Helpers(lambda: abs, count=0) as alone:
        ...     list(alone.share([1, -2, 3], own=abs))
        [1, 2, 3]
    """

    def __init__(
        self, make: Callable[[], Callable[[Item], Result]], count: int, name_of: Callable[[Item], str] = str
    ) -> None:
        self._make, self._name_of = make, name_of
        self._died = Counter[int]()
        self._stillborn = 0
        self._helpers = [_Helper(make) for _ in range(count)]

    def share(self, items: Iterable[Item], own: Callable[[Item], Result]) -> Iterator[Result]:
        """The result of every item, in the items' order; ``own`` is this process's way to one.

        Raises:
            RuntimeError: three helpers died over one item.
            Exception: what the work raised, when its item's turn comes.
        """
        queue, done, turn = _Queue(items), dict[int, _Outcome](), 0
        while True:
            below = turn + _AHEAD * (len(self._helpers) + 1)
            self._hand_out(queue, below)
            # What killed a helper is not for this process, as long as there are others.
            mine = queue.take(below, again=not self._helpers)
            if mine is not None:
                done[mine[0]] = _attempt(own, mine[1])
            elif not queue.again and not any(helper.held for helper in self._helpers):
                return
            done |= self._collect(queue, block=mine is None)
            while turn in done:
                outcome = done.pop(turn)
                if outcome.error is not None:
                    raise outcome.error
                yield outcome.result
                turn += 1

    def _hand_out(self, queue: "_Queue", below: int) -> None:
        for helper in self._helpers:
            while helper.ready and len(helper.held) < _AT_HAND and (taken := queue.take(below, again=True)):
                helper.give(taken)

    def _collect(self, queue: "_Queue", *, block: bool) -> dict[int, _Outcome]:
        """What helpers have to say; with ``block`` the wait is for one of them."""
        found: dict[int, _Outcome] = {}
        speaking = wait([helper.pipe for helper in self._helpers], None if block else 0)
        for helper in [each for each in self._helpers if each.pipe in speaking]:
            try:
                outcome: _Outcome = helper.pipe.recv()
            except (EOFError, OSError):
                self._replace(helper, queue)
                continue
            if helper.ready:
                found[helper.held.popleft()[0]] = outcome
            elif outcome.error is not None:
                raise outcome.error
            helper.ready = True
        return found

    def _replace(self, dead: "_Helper", queue: "_Queue") -> None:
        how = dead.end(patience=1)
        self._helpers.remove(dead)
        queue.again.extendleft(reversed(dead.held))
        if dead.held:
            number, item = dead.held[0]
            self._died[number] += 1
            if self._died[number] == _TRIES:
                raise RuntimeError(f"{_TRIES} processes died over {self._name_of(item)}, the last {how}")
        elif not dead.ready:
            self._stillborn += 1
        if self._stillborn < _TRIES:
            self._helpers.append(_Helper(self._make))
            after = "another takes its place"
        else:
            after = f"the work goes on in {len(self._helpers) + 1}"
        warnings.warn(f"one of the processes died ({how}); {after}", RuntimeWarning, stacklevel=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for helper in self._helpers:
            helper.end()


class _Queue:
    """Items with their numbers, and those of helpers that died."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.again: deque[tuple[int, Any]] = deque()
        self._source = enumerate(items)
        self._taken = 0

    def take(self, below: int, *, again: bool) -> tuple[int, Any] | None:
        """The next item, one that was given out before if there is ``again``; none from number ``below`` on."""
        if again and self.again:
            return self.again.popleft()
        if self._taken >= below:
            return None
        taken = next(self._source, None)
        self._taken += taken is not None
        return taken


class _Helper:
    """A process at the other end of a pipe: it says that it is ready, then answers item after item."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self.ready = False
        self.held: deque[tuple[int, Any]] = deque()
        # A fork of a process that has threads may wait for ever.
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_help, args=(other, make), daemon=True)
        with _interrupts_held():
            self.process.start()
        other.close()

    def give(self, taken: tuple[int, Any]) -> None:
        """Hand out an item; whether the process lives shows when its pipe is read."""
        self.held.append(taken)
        with suppress(OSError):
            self.pipe.send(taken[1])

    def end(self, patience: float = 0) -> str:
        """Kill it where it still lives after so many seconds, and say how it ended."""
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with {code}"


def _help(pipe: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    """What a helper does until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    warnings.simplefilter("ignore")  # the parent, which does the same, has said it
    with suppress(EOFError, OSError):
        made = _attempt(lambda _: make(), None)
        pipe.send(_Outcome(None, _portable(made.error)))
        while made.error is None:
            outcome = _attempt(made.result, pipe.recv())
            pipe.send(outcome._replace(error=_portable(outcome.error)))


def _attempt(work: Callable[[Any], Any], item: Any) -> _Outcome:
    try:
        return _Outcome(work(item))
    except Exception as error:
        return _Outcome(None, error)


def _portable(error: Exception | None) -> Exception | None:
    """The error as it can cross to another process, with where it came from."""
    if error is None:
        return None
    error.add_note("".join(traceback.format_exception(error)))
    with suppress(Exception):
        pickle.loads(pickle.dumps(error))  # noqa: S301 (what was dumped here)
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Have a process that is started here never hear Ctrl-C, not even while it begins."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

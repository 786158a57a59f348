"""Who writes a temporary file, and whether anybody still does."""

import hashlib
import os
import platform
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_ABANDONED_SECONDS = 3600
_OF_A_DAY = 24 * 3600


def writer() -> str:
    """What a temporary name begins with: this machine and this process."""
    return f"{_machine()}-{os.getpid()}-"


def is_abandoned(name: str, touched: float) -> bool:
    """Whether nobody writes any more to what has this name, which `writer` begins, and was last touched then.

    Of this machine's: its process is gone, or a day has passed (its number may be another's by now). Of others', which
    share the disk: an hour has passed.

    >>> is_abandoned(writer() + "x.partial", time.time()), is_abandoned("elsewhere-1-x.partial", time.time() - 7200)
    (False, True)
    """
    machine, _, rest = name.partition("-")
    process, age = rest.partition("-")[0], time.time() - touched
    if machine != _machine() or not process.isdecimal():
        return age > _ABANDONED_SECONDS
    return age > _OF_A_DAY or not _is_alive(int(process))


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where a signal of 0 would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # another user's
    return True


@cache
def _machine() -> str:
    """A name of this machine since it was started, and of this container: process numbers mean something within."""
    facts = [platform.node()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:10]

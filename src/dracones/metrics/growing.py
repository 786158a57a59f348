"""Numbers that arrive a few at a time, in one array."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Growing:
    """Numbers appended in place: a reallocation moves pages instead of copying, so no second array is ever alive."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._buffer = np.empty(0, dtype=dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> NDArray[Any]:
        """What was appended so far; a view that the next `append` may leave behind."""
        return self._buffer[: self._size]

    def append(self, numbers: NDArray[Any]) -> None:
        """Take in more; a type that cannot hold them gives way to one that can."""
        if self._buffer.dtype != numbers.dtype:
            self._buffer = self._buffer.astype(np.result_type(self._buffer, numbers))
        if self._size + numbers.size > self._buffer.size:
            capacity = max(self._size + numbers.size, self._buffer.size + self._buffer.size // 8, 1 << 12)
            self._buffer.resize(capacity, refcheck=False)
        self._buffer[self._size : self._size + numbers.size] = numbers
        self._size += numbers.size

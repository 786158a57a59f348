"""Heat maps of any number of images, of which memory holds one."""

import tempfile
from array import array
from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

_BYTES = 4


class MapsOnDisk(Sequence[NDArray[np.float32]]):
    """Maps ``[H, W]`` of any sizes, in a file without a name that is gone with this object.

    Example:
        >>> maps = MapsOnDisk()
        >>> maps.append(np.ones((2, 3), np.float32))
        >>> len(maps), maps[0].shape
        (1, (2, 3))
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="dracones")  # noqa: SIM115 - it lives as long as this
        self._sizes = array("q")
        self._starts = array("q", [0])

    def append(self, heat: NDArray[np.float32]) -> None:
        """Add a map.

        Raises:
            OSError: the disk of temporary files is full.
        """
        self._file.seek(self._starts[-1])
        self._file.write(np.ascontiguousarray(heat, dtype=np.float32).tobytes())
        self._sizes.extend(heat.shape)
        self._starts.append(self._starts[-1] + _BYTES * heat.size)

    @override
    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.float32]]: ...
    @override
    def __getitem__(self, index: int | slice) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        self._file.seek(self._starts[place])
        data = self._file.read(self._starts[place + 1] - self._starts[place])
        return np.frombuffer(data, dtype=np.float32).reshape(self._sizes[2 * place : 2 * place + 2]).copy()

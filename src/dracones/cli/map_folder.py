"""Heat maps of any number of images in a folder: numbers as they come, pictures at the end on one scale."""

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dracones.data import ImageCollection


class MapFolder:
    """Writes each map as it comes and forgets it; colours need all maps, so pictures are drawn from the files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._raw: dict[str, Path] = {}
        self._middles: list[float] = []
        self._highest = float("-inf")

    def keep(self, name: str, score_map: "NDArray[np.float32]") -> None:
        """Write one map's numbers."""
        import numpy as np

        from dracones.report import write_maps

        (self._raw[name],) = write_maps(self.folder, name, score_map, pictures=False)
        self._middles.append(float(np.median(score_map)))
        self._highest = max(self._highest, float(score_map.max()))

    def draw(self, images: "ImageCollection") -> None:
        """Draw every kept map over its image, from the usual score (cold) to the highest of all (hot)."""
        import numpy as np

        from dracones.report import write_maps

        native: Any = images.with_preprocess(None)
        for i, name in enumerate(native.names):
            if name in self._raw:
                score_map = np.load(self._raw[name], allow_pickle=False)
                write_maps(
                    self.folder,
                    name,
                    score_map,
                    images=native.read(i),
                    low=median(self._middles),
                    high=self._highest,
                    raw=None,
                )

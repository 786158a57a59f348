"""Heat maps of any number of images in a folder: numbers as they come, pictures at the end on one scale."""

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dracones.calibration.heat_range import HeatRange
    from dracones.images import ImageCollection
    from dracones.training import Progress


class MapFolder:
    """Writes each map as it comes and forgets it, so memory holds one; pictures are drawn from the files.

    Colours and outline follow the heat of normal images, `normal`, so that a good part looks calm whatever lies beside
    it; without it, the maps at hand have to make the scale.
    """

    def __init__(self, folder: Path, normal: "HeatRange | None") -> None:
        self.folder = folder
        self.normal = normal
        self._raw: dict[str, Path] = {}
        self._middles: list[float] = []
        self._highest = float("-inf")

    def keep(self, name: str, score_map: "NDArray[np.float32]") -> None:
        """Write one map's numbers."""
        import numpy as np

        from dracones.report import write_maps

        (self._raw[name],) = write_maps(self.folder, name, score_map, pictures=False)
        if self.normal is None:
            self._middles.append(float(np.nanmedian(score_map)))
            self._highest = max(self._highest, float(np.nanmax(score_map)))

    def draw(self, images: "ImageCollection", progress: "Progress") -> None:
        """Draw every kept map over its image, with the scale below."""
        import numpy as np

        from dracones.report import write_maps

        if not self._raw:
            return
        threshold = None if self.normal is None else self.normal.threshold
        low, high = (median(self._middles), self._highest) if self.normal is None else self.normal.colours
        native: Any = images.with_preprocess(None)
        progress.start(len(self._raw), "drawing heat maps")
        for i, name in enumerate(native.names):
            if name in self._raw:
                score_map = np.load(self._raw[name], allow_pickle=False)
                write_maps(
                    self.folder,
                    name,
                    score_map,
                    images=native.read(i),
                    threshold=threshold,
                    low=low,
                    high=high,
                    raw=None,
                    legend=True,
                )
                progress.advance(1)
        progress.finish()

    def describe(self) -> str:
        """What was written, and what the colours mean."""
        wrote = f"wrote {len(self._raw)} heat maps to {self.folder}"
        if self.normal is None:
            return (
                f"{wrote}; colours run from the usual to the hottest of these images alone, so a good part may look "
                "hot: `dracones calibrate` sets the scale by normal images"
            )
        return f"{wrote}; outlined where {self.normal.meaning()}"

"""The two sides of a comparison, as `evaluate` and `report` are told of them."""

from pathlib import Path
from typing import Any, NamedTuple

from dracones.cli.interest import regions_for, within
from dracones.cli.models import open_data, open_test


class Sides(NamedTuple):
    """What the options name."""

    normal: str | None
    anomalous: str | None
    masks: Path | None
    no_masks: bool
    category: Path | None
    roi: Path | None

    def opened(self, model: Path, detector: Any) -> tuple[Any, Any]:
        """Normal and anomalous images, as the model reads them.

        Raises:
            ValueError: options that contradict each other, or a side that is missing.
        """
        if self.masks is not None and self.no_masks:
            raise ValueError("--masks and --no-masks contradict each other; give one of them")
        normal, anomalous = self._of_category(model, detector) if self.category else self._of_both(model, detector)
        return normal, anomalous.without_masks() if self.no_masks else anomalous

    def _of_category(self, model: Path, detector: Any) -> tuple[Any, Any]:
        if self.normal or self.anomalous or self.masks or self.category is None:
            raise ValueError("--category names both sides and the masks; leave out --normal, --anomalous and --masks")
        test, labels = open_test(model, self.category)
        test = within(model, detector, test, self.roi)
        return test.subset(labels == 0), test.subset(labels == 1)

    def _of_both(self, model: Path, detector: Any) -> tuple[Any, Any]:
        if self.normal is None or self.anomalous is None:
            raise ValueError("give --normal DATA and --anomalous DATA, or --category DIR")
        normal, anomalous = open_data(model, self.normal), open_data(model, self.anomalous, masks=self.masks)
        regions = regions_for(self.roi, {"normal": normal, "anomalous": anomalous})
        return (
            within(model, detector, normal, regions["normal"]),
            within(model, detector, anomalous, regions["anomalous"]),
        )

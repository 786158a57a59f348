"""How many images raise an alarm."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dracones.calibration import realised_rate
from dracones.metrics import Estimate


@dataclass(frozen=True)
class Alarms:
    """How many images were called anomalous: `count` of `total`, and the share with its Clopper-Pearson interval."""

    count: int
    total: int
    share: Estimate

    @classmethod
    def of(cls, flags: NDArray[np.bool_], confidence: float) -> "Alarms":
        """From verdicts ``[N]``, at least one."""
        return cls(int(flags.sum()), len(flags), realised_rate(flags, confidence))

    def to_json(self) -> dict[str, float]:
        """``count``, ``total``, and the share's ``value``, ``low``, ``high``."""
        return {"count": self.count, "total": self.total, **self.share.to_dict()}

"""From a fitted detector to one file that scores the same without torch; proven before it is written."""

from dracones.export.deployed import Deployed, refusal
from dracones.export.exporting import Exported, export

__all__ = ["Deployed", "Exported", "export", "refusal"]

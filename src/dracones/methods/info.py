"""What a method is, where it comes from, what it needs and what it gives: one record drives tables and tests."""

from dataclasses import dataclass
from typing import Literal

Need = Literal["images", "labels", "backbone", "classifier", "gradients"]
Gift = Literal["score", "map", "log_prob", "samples", "latents"]
Family = Literal["likelihood", "feature flow", "feature memory", "classifier"]


@dataclass(frozen=True)
class MethodInfo:
    """A method's identity card.

    ``needs`` and ``gives`` are claims that the tests check: a method that says it gives a ``map`` must return one.

    >>> info = MethodInfo("glow", "Glow", ("Kingma", "Dhariwal"), 2018, "arXiv:1807.03039", "likelihood")
    >>> info.citation
    'Kingma & Dhariwal (2018), Glow, arXiv:1807.03039'
    """

    name: str
    title: str
    authors: tuple[str, ...]
    year: int
    url: str
    family: Family
    needs: tuple[Need, ...] = ("images",)
    gives: tuple[Gift, ...] = ("score",)
    summary: str = ""

    @property
    def citation(self) -> str:
        """Authors, year, title and address in one line."""
        if len(self.authors) > 2:
            names = f"{self.authors[0]} et al."
        else:
            names = " & ".join(self.authors)
        return f"{names} ({self.year}), {self.title}, {self.url}"

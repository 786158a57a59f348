"""Guards that shape the features before the last layer and take the energy: ReAct, ASH, SCALE, DICE."""

from typing import ClassVar, Literal

from pydantic import Field

from dracones.methods.guards import shaped
from dracones.methods.guards.guard import Guard, GuardConfig
from dracones.methods.guards.post_hoc import PostHocScore
from dracones.methods.info import MethodInfo
from dracones.methods.registry import register


@register
class React(Guard):
    """`shaped.RectifiedEnergy`: activations clipped at a percentile of the training activations."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="react",
        title="ReAct: Out-of-distribution Detection With Rectified Activations",
        authors=("Sun", "Guo", "Li"),
        year=2021,
        url="https://arxiv.org/abs/2111.12797",
        family="classifier",
        needs=("images", "classifier"),
        summary="energy after clipping large activations",
    )

    class Config(GuardConfig):
        """Options of ReAct."""

        percentile: float = Field(0.9, gt=0, le=1, description="of the training activations, where they are clipped")

    config: Config

    def make_score(self) -> PostHocScore:
        """The formula."""
        return shaped.RectifiedEnergy(percentile=self.config.percentile)


@register
class Ash(Guard):
    """`shaped.PrunedEnergy`: small activations pruned, the rest scaled."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="ash",
        title="Extremely Simple Activation Shaping for Out-of-Distribution Detection",
        authors=("Djurisic", "Bozanic", "Ashok", "Liu"),
        year=2023,
        url="https://arxiv.org/abs/2209.09858",
        family="classifier",
        needs=("images", "classifier"),
        summary="energy after pruning small activations and scaling the rest",
    )

    class Config(GuardConfig):
        """Options of ASH."""

        percentile: float = Field(0.9, ge=0, lt=1, description="share of an image's activations that is pruned")
        variant: Literal["s", "b", "p"] = Field(
            "s", description="s scales the survivors, b makes them equal, p leaves them"
        )

    config: Config

    def make_score(self) -> PostHocScore:
        """The formula."""
        return shaped.PrunedEnergy(percentile=self.config.percentile, variant=self.config.variant)


@register
class Scale(Guard):
    """`shaped.ScaledEnergy`: all activations scaled by how concentrated they are."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="scale",
        title="Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement",
        authors=("Xu", "Chen", "Franchi", "Yao"),
        year=2024,
        url="https://arxiv.org/abs/2310.00227",
        family="classifier",
        needs=("images", "classifier"),
        summary="energy after scaling activations by how concentrated they are",
    )

    class Config(GuardConfig):
        """Options of SCALE."""

        percentile: float = Field(0.85, ge=0, lt=1, description="share of the activations left out of the denominator")

    config: Config

    def make_score(self) -> PostHocScore:
        """The formula."""
        return shaped.ScaledEnergy(percentile=self.config.percentile)


@register
class Dice(Guard):
    """`shaped.SparseEnergy`: the last layer's small contributions zeroed."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="dice",
        title="DICE: Leveraging Sparsification for Out-of-Distribution Detection",
        authors=("Sun", "Li"),
        year=2022,
        url="https://arxiv.org/abs/2111.09805",
        family="classifier",
        needs=("images", "classifier"),
        summary="energy with the last layer's small contributions zeroed",
    )

    class Config(GuardConfig):
        """Options of DICE."""

        sparsity: float = Field(0.9, ge=0, lt=1, description="share of the last layer's weights that is zeroed")

    config: Config

    def make_score(self) -> PostHocScore:
        """The formula."""
        return shaped.SparseEnergy(sparsity=self.config.sparsity)

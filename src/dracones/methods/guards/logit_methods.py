"""Guards that read the logits alone: MSP, maximum logit, energy, entropy, generalised entropy."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from dracones.methods.guards import logit_scores
from dracones.methods.guards.guard import Guard, GuardConfig
from dracones.methods.guards.outputs import ClassifierOutputs
from dracones.methods.guards.post_hoc import PostHocScore
from dracones.methods.info import MethodInfo
from dracones.methods.registry import register


class LogitScore(PostHocScore):
    """A pure function of the logits as a score; nothing is learnt.

    Args:
        formula: name of a function of `logit_scores`.
        options: its keyword arguments.

    >>> import torch
    >>> LogitScore("energy", temperature=1.0).score(ClassifierOutputs(torch.zeros(1, 2)))
    tensor([-0.6931])
    """

    def __init__(self, formula: str, **options: float) -> None:
        super().__init__()
        self._formula, self._options = getattr(logit_scores, formula), options

    def score_outputs(self, outputs: ClassifierOutputs) -> Tensor:
        """The formula."""
        scores: Tensor = self._formula(outputs.logits, **self._options)
        return scores


@register
class Msp(Guard):
    """`logit_scores.msp`: one minus the maximum softmax probability."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="msp",
        title="A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks",
        authors=("Hendrycks", "Gimpel"),
        year=2017,
        url="https://arxiv.org/abs/1610.02136",
        family="classifier",
        needs=("images", "classifier"),
        summary="one minus the largest softmax probability: the baseline",
    )

    class Config(GuardConfig):
        """Options of MSP."""

        temperature: float = Field(1.0, gt=0, description="divides the logits")

    config: Config

    def make_score(self) -> PostHocScore:
        """The formula."""
        return LogitScore("msp", temperature=self.config.temperature)


@register
class MaxLogit(Guard):
    """`logit_scores.max_logit`: minus the largest logit."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="max_logit",
        title="Scaling Out-of-Distribution Detection for Real-World Settings",
        authors=("Hendrycks", "Basart", "Mazeika", "Zou", "Kwon", "Mostajabi", "Steinhardt", "Song"),
        year=2022,
        url="https://arxiv.org/abs/1911.11132",
        family="classifier",
        needs=("images", "classifier"),
        summary="minus the largest logit",
    )

    def make_score(self) -> PostHocScore:
        """The formula."""
        return LogitScore("max_logit")


@register
class Energy(Guard):
    """`logit_scores.energy`: free energy of the logits."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="energy",
        title="Energy-based Out-of-distribution Detection",
        authors=("Liu", "Wang", "Owens", "Li"),
        year=2020,
        url="https://arxiv.org/abs/2010.03759",
        family="classifier",
        needs=("images", "classifier"),
        summary="free energy, minus the log-sum-exp of the logits",
    )

    class Config(GuardConfig):
        """Options of the energy."""

        temperature: float = Field(1.0, gt=0, description="T; 1 in the paper")

    config: Config

    def make_score(self) -> PostHocScore:
        """The formula."""
        return LogitScore("energy", temperature=self.config.temperature)


@register
class Entropy(Guard):
    """`logit_scores.entropy`: entropy of the softmax."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="entropy",
        title="Entropy Maximization and Meta Classification for Out-of-Distribution Detection in Semantic Segmentation",
        authors=("Chan", "Rottmann", "Gottschalk"),
        year=2021,
        url="https://arxiv.org/abs/2012.06575",
        family="classifier",
        needs=("images", "classifier"),
        summary="Shannon entropy of the softmax",
    )

    def make_score(self) -> PostHocScore:
        """The formula."""
        return LogitScore("entropy")


@register
class Gen(Guard):
    """`logit_scores.gen`: generalised entropy of the most likely classes."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="gen",
        title="GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection",
        authors=("Liu", "Lochman", "Zach"),
        year=2023,
        url="https://openaccess.thecvf.com/content/CVPR2023/papers/Liu_GEN_Pushing_the_Limits_of_Softmax-Based_"
        "Out-of-Distribution_Detection_CVPR_2023_paper.pdf",
        family="classifier",
        needs=("images", "classifier"),
        summary="generalised entropy, which weighs small probabilities more than Shannon's",
    )

    class Config(GuardConfig):
        """Options of GEN."""

        gamma: float = Field(0.1, gt=0, lt=1, description="exponent; 0.1 in the paper")
        top: int = Field(100, ge=1, description="M, the most likely classes that are summed; 100 in the paper")

    config: Config

    def make_score(self) -> PostHocScore:
        """The formula."""
        return LogitScore("gen", gamma=self.config.gamma, top=self.config.top)

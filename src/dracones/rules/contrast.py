"""Rules that hold a likelihood against another likelihood: a background model, an ensemble, a refitted posterior."""

import torch
from torch import Tensor

from dracones import draws
from dracones.rules.rule import Rule, register


@register("likelihood_ratio")
class LikelihoodRatio(Rule):
    """How much likelier an image is under a background model than under the model, nats.

    Score: log p_0(x) - log p(x) (the paper's ratio with its sign turned). The background model p_0 is the same
    density trained on images some of whose pixels were replaced, see `replace_pixels`: it knows the background
    and the statistics of pixels, but not what makes an image normal.

    Reference: Ren et al. 2019, "Likelihood Ratios for Out-of-Distribution Detection" (NeurIPS), eq. 2.

    >>> rule = LikelihoodRatio()
    >>> rule.score({"log_prob": torch.tensor([-10.0]), "background_log_prob": torch.tensor([-14.0])}).item()
    -4.0
    """

    requires = ("log_prob", "background_log_prob")

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return statistics["background_log_prob"] - statistics["log_prob"]


def replace_pixels(images: Tensor, *, rate: float, generator: torch.Generator) -> Tensor:
    """Images of which each pixel is replaced, with probability `rate`, by a uniform draw from the 256 levels.

    What a background model is trained on; 0.1 to 0.3 in Ren et al. 2019, section 3.1.

    >>> images = torch.zeros(1, 1, 100, 100)
    >>> changed = replace_pixels(images, rate=0.2, generator=torch.Generator().manual_seed(0))
    >>> 0.18 < float((changed > 0).float().mean()) < 0.22
    True
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: a probability in [0, 1], got {rate}")
    chosen = draws.uniform(images.shape, generator) < rate
    levels = draws.levels(images.shape, generator).to(images) / 255
    return torch.where(chosen.to(images.device), levels, images)


@register("waic")
class WAIC(Rule):
    """Minus the ensemble's mean log-likelihood plus its variance: unlikely, or disputed among the models.

    Score: Var[log p(x)] - E[log p(x)] over independently trained densities (the paper's WAIC with its sign
    turned). Nats and nats squared are added as in the paper.

    Reference: Choi, Jang and Alemi 2018, "WAIC, but Why?", eq. 2.

    >>> rule = WAIC()
    >>> statistics = {"ensemble_log_prob_mean": torch.tensor([-10.0]),
    ...               "ensemble_log_prob_variance": torch.tensor([2.0])}
    >>> rule.score(statistics).item()
    12.0
    """

    requires = ("ensemble_log_prob_mean", "ensemble_log_prob_variance")

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return statistics["ensemble_log_prob_variance"] - statistics["ensemble_log_prob_mean"]


@register("likelihood_regret")
class LikelihoodRegret(Rule):
    """How much the bound on log p(x) gains, in nats, when the posterior is refitted to this one image.

    For densities that give the statistic `likelihood_regret` (a VAE). Large: the encoder has never had to
    explain such an image.

    Reference: Xiao, Yan and Amit 2020, "Likelihood Regret" (NeurIPS), eq. 6.

    >>> LikelihoodRegret().score({"likelihood_regret": torch.tensor([7.0])}).item()
    7.0
    """

    requires = ("likelihood_regret",)

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return statistics["likelihood_regret"]

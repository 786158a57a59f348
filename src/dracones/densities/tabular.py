"""Flows for feature vectors: RealNVP and NICE with multilayer perceptrons, for tables and embeddings."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dracones.flows import (
    MLP,
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Chain,
    Flow,
    TanhScale,
    channels,
)

_PRESETS: dict[str, dict[str, Any]] = {
    "realnvp": {"couplings": 8, "hidden": 256, "layers": 1, "coupling": "affine"},
    "nice": {"couplings": 10, "hidden": 256, "layers": 2, "coupling": "additive"},
    "embeddings": {"couplings": 8, "hidden": 512, "layers": 2, "coupling": "affine"},
    "tiny": {"couplings": 4, "hidden": 32, "layers": 1, "coupling": "affine"},
}


class TabularFlow(nn.Module):
    """log p of feature vectors [B, D] in nats, by couplings whose halves alternate.

    The features' mean and standard deviation over normal data (`standardise`) are buffers, and count in the
    log-determinant. `statistics` gives `log_prob`, `log_prob_latent` and `log_det`, so that the rules for image
    densities work on vectors as well. The affine couplings are RealNVP's, the additive ones NICE's with a
    learnt scale per dimension at the end.

    Reference: Dinh et al. 2015 (NICE); Kirichenko et al. 2020, section 8 and appendix K (embeddings, tables: 8
    couplings of one hidden layer); NF-SLT (NICE, 10 couplings).

    >>> flow = create_tabular("tiny", features=5).eval()
    >>> flow.log_prob(torch.zeros(2, 5)).shape
    torch.Size([2])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        features: int,
        *,
        couplings: int = 8,
        hidden: int = 256,
        layers: int = 1,
        coupling: str = "affine",
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if features < 2:
            raise ValueError(f"tabular flow: a coupling needs at least 2 features, got {features}")
        if coupling not in ("affine", "additive"):
            raise ValueError(f"tabular flow: coupling must be 'affine' or 'additive', got {coupling!r}")
        self.features = features
        self.config: dict[str, Any] = {}
        with torch.random.fork_rng(devices=[]):  # weights from the seed, the caller's generator left alone
            torch.manual_seed(seed)
            network = partial(MLP, hidden=hidden, layers=layers, dropout=dropout)
            bijections: list[Bijection] = [
                _coupling(coupling, channels(features, reverse=index % 2 == 1), network) for index in range(couplings)
            ]
        # ActNorm: the learnt scale per dimension that NICE needs at its end
        self.flow = Flow(Chain(*bijections, ActNorm(features)), shape=(features,))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))

    @property
    def available_statistics(self) -> tuple[str, ...]:
        """Names that `statistics` can give."""
        return ("log_prob", "log_prob_latent", "log_det")

    @torch.no_grad()
    def standardise(self, vectors: Tensor) -> None:
        """Take mean and standard deviation from normal vectors [N, D]; a constant feature keeps scale 1."""
        self._check(vectors)
        self.mean.copy_(vectors.mean(dim=0))
        deviation = vectors.std(dim=0)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def statistics(
        self,
        vectors: Tensor,
        *,
        names: Sequence[str] | None = None,
        generator: torch.Generator | None = None,  # noqa: ARG002 (the densities' common signature)
    ) -> dict[str, Tensor]:
        """Named terms [B] in nats."""
        self._check(vectors)
        unknown = [name for name in names or () if name not in self.available_statistics]
        if unknown:
            raise ValueError(f"tabular flow: cannot give {unknown}; it gives {list(self.available_statistics)}")
        terms = self.flow.terms((vectors - self.mean) / self.deviation)
        log_det = terms.log_det - self.deviation.log().sum()
        found = {
            "log_prob": terms.log_prob_latent + log_det,
            "log_prob_latent": terms.log_prob_latent,
            "log_det": log_det,
        }
        return {name: found[name] for name in names or self.available_statistics}

    def log_prob(self, vectors: Tensor) -> Tensor:
        """Nats [B]."""
        return self.statistics(vectors, names=("log_prob",))["log_prob"]

    def training_loss(self, vectors: Tensor, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Mean negative log-likelihood in nats per dimension."""
        return -self.log_prob(vectors).mean() / self.features

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Vectors [count, D] drawn from the density."""
        return self.flow.sample(count, generator=generator) * self.deviation + self.mean

    def _check(self, vectors: Tensor) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.features:
            raise ValueError(f"tabular flow: expected vectors [B, {self.features}], got {list(vectors.shape)}")


def _coupling(name: str, reads: Tensor, network: Callable[[int, int], nn.Module]) -> Bijection:
    if name == "additive":
        return AdditiveCoupling(reads, network)
    return AffineCoupling(reads, network, scale=TanhScale(int((~reads).sum()), limit=2.0, slope=0.5, learnable=False))


def create_tabular(preset: str = "realnvp", *, features: int, **overrides: Any) -> TabularFlow:
    """A tabular flow with the options of `preset` (`realnvp`, `nice`, `embeddings`, `tiny`), overridden by name.

    Raises `ValueError` for an unknown preset or option.
    """
    if preset not in _PRESETS:
        raise ValueError(f"tabular flow: no preset {preset!r}; there are {', '.join(_PRESETS)}")
    try:
        flow = TabularFlow(features, **{**_PRESETS[preset], **overrides})
    except TypeError as error:
        raise ValueError(f"tabular flow: {error}; options are {sorted(_PRESETS[preset])}") from error
    flow.config = {"preset": preset, "features": features, "overrides": dict(overrides)}
    return flow

"""PixelCNN: the probability of an image as a product over its pixels, each given all that come before it."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dracones.densities.bits import LEVELS, bits_per_dim, rounded, to_levels
from dracones.densities.density import Density
from dracones.densities.pixelcnn_layers import PixelCNNNetwork
from dracones.densities.pixelcnn_logistic import LogisticMixture, centred
from dracones.densities.registry import register

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"features": 24, "layers": 4, "kernel": 3, "first_kernel": 5, "components": 3},
    "small": {"features": 64, "layers": 8, "kernel": 3, "first_kernel": 7, "components": 5},
    "gated": {"features": 120, "layers": 15, "kernel": 5, "first_kernel": 7, "likelihood": "categorical"},
    "paper": {
        "features": 160,
        "layers": 15,
        "kernel": 5,
        "first_kernel": 7,
        "components": 10,
        "dropout": 0.5,
    },
}

_STRIP = 256  # pixels whose conditional distributions are held at once


@register("pixelcnn", PRESETS)
class PixelCNN(Density):
    """log P(image) = Σ over pixels of log P(pixel | the pixels above it and to its left), exact and discrete.

    The network is the gated PixelCNN (two stacks, no blind spot). Its output distribution is either PixelCNN++'s
    mixture of discretised logistics, one for a whole pixel, or a free 256-way softmax for each channel, each channel
    seeing the earlier ones.

    Statistics, per image:
    - ``log_prob``: nats of the 8-bit image;
    - ``expected_log_prob``: the log-probability that the model itself expects, −Σ of the entropies of its
      conditional distributions, nats;
    - ``surprise``: (log_prob − expected_log_prob) / sqrt(Σ conditional variances of log p). By the martingale central
      limit theorem about N(0, 1) for the model's own samples: too likely is positive, too unlikely negative.

    Args:
        image_shape: (C, H, W).
        features: width of the layers.
        layers: gated layers.
        kernel: odd window.
        first_kernel: odd window of the first layer.
        likelihood: ``"mixture"`` or ``"categorical"``.
        components: logistics in the mixture.
        dropout: share dropped in training (PixelCNN++: 0.5).
        seed: of the weights.

    Reference:
        van den Oord et al. (2016), "Conditional Image Generation with PixelCNN Decoders"; Salimans, Karpathy, Chen,
        Kingma (2017), "PixelCNN++". PixelCNN++'s down- and upsampling is left out: the stacks keep full resolution.

    Example:
        >>> density = PixelCNN((1, 8, 8), features=8, layers=2, components=2)
        >>> density.log_prob(torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))).shape
        torch.Size([3])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        features: int = 64,
        layers: int = 8,
        kernel: int = 3,
        first_kernel: int = 7,
        likelihood: Literal["mixture", "categorical"] = "mixture",
        components: int = 5,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(image_shape, seed=seed)
        channels = self.image_shape[0]
        self.likelihood = likelihood
        if likelihood == "mixture":
            groups, outputs = 1, LogisticMixture.outputs(channels, components)
        elif likelihood == "categorical":
            groups, outputs = channels, LEVELS * channels
        else:
            raise ValueError(f"PixelCNN: likelihood must be 'mixture' or 'categorical', got {likelihood!r}")
        for name, window in (("kernel", kernel), ("first_kernel", first_kernel)):
            if window < 3 or window % 2 == 0:
                raise ValueError(f"PixelCNN: {name} must be odd and at least 3, got {window}")
        if features < groups or layers < 1:
            raise ValueError(
                f"PixelCNN: needs at least {groups} features (one a channel) and 1 layer, got {features} and {layers}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = PixelCNNNetwork(
                channels,
                groups,
                outputs,
                features=features,
                layers=layers,
                kernel=kernel,
                first_kernel=first_kernel,
                dropout=dropout,
            )
        if likelihood == "mixture":
            # Components that start side by side over the range: alike, they would stay alike for long.
            start = LogisticMixture.starting_bias(channels, components)
            self.network.output.bias = nn.Parameter(start)

    @property
    def available_statistics(self) -> tuple[str, ...]:
        """Names that `statistics` can give."""
        return ("log_prob", "expected_log_prob", "surprise")

    def log_prob_map(self, images: Tensor) -> Tensor:
        """log P of each pixel given the earlier ones, nats [B, H, W]; its sum is `log_prob`. Where it is low, the
        image takes an unexpected turn.
        """
        self.check_images(images)
        levels = to_levels(images)
        return self._pixel_log_prob(self.network(centred(levels)), levels)

    def forward(
        self, images: Tensor, *, names: Sequence[str], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Named numbers per image [B]. The density is discrete: ``generator`` draws only the dropout of training."""
        levels = rounded(images)
        output = self.network(centred(levels), generator=generator)
        found = {"log_prob": self._pixel_log_prob(output, levels).sum((1, 2))}
        if set(names) - {"log_prob"}:
            expected, variance = self._moments(output, levels)
            found["expected_log_prob"] = expected
            found["surprise"] = (found["log_prob"] - expected) / variance.clamp(min=1e-12).sqrt()
        return {name: found[name] for name in names}

    def training_loss(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean bits per dimension of a batch; dropout, where set, is drawn from ``generator``."""
        return bits_per_dim(self.log_prob(images, generator=generator), self.dimensions).mean()

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Images [count, C, H, W] in [0, 1], drawn value by value: H·W passes (·C when categorical).

        Each pass computes only the rows that can still change the pixel's distribution. The temperature divides the
        log-probabilities that values are drawn by, and multiplies the scales of a mixture's components.
        """
        channels, height, width = self.image_shape
        device = next(self.parameters()).device
        levels = torch.zeros(count, channels, height, width, device=device)
        training = self.training
        self.eval()
        for row in range(height):
            rows = slice(max(0, row - self.network.reach), row + 1)
            for column in range(width):
                if self.likelihood == "mixture":
                    output = self.network(centred(levels[:, :, rows]))[:, :, -1:, column : column + 1]
                    mixture = LogisticMixture.from_output(output, channels=channels)
                    levels[:, :, row, column] = mixture.sample(generator=generator, temperature=temperature)[:, :, 0, 0]
                    continue
                for channel in range(channels):
                    output = self.network(centred(levels[:, :, rows]))[:, :, -1, column]
                    weights = output.unflatten(1, (channels, LEVELS))[:, channel].div(temperature).softmax(1)
                    drawn = torch.multinomial(weights.to(generator.device), 1, generator=generator)
                    levels[:, channel, row, column] = drawn[:, 0].to(levels)
        self.train(training)
        return levels / (LEVELS - 1)

    def _pixel_log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        if self.likelihood == "mixture":
            return LogisticMixture.from_output(output, channels=self.image_shape[0]).log_prob(levels)
        every = F.log_softmax(output.unflatten(1, (self.image_shape[0], LEVELS)), dim=2)
        return every.gather(2, levels.long()[:, :, None])[:, :, 0].sum(1)

    def conditional_log_probs(self, output: Tensor, levels: Tensor, channel: int) -> Tensor:
        """log P of all 256 levels of one channel at every pixel given what comes before: [B, 256, H, W].

        Args:
            output: of ``network(centred(levels))``.
            levels: [B, C, H, W] in 0..255.
            channel: which channel.
        """
        if self.likelihood == "mixture":
            mixture = LogisticMixture.from_output(output, channels=self.image_shape[0])
            return mixture.conditional_log_probs(levels, channel)
        return F.log_softmax(output.unflatten(1, (self.image_shape[0], LEVELS))[:, channel], dim=1)

    def _conditional_probs(self, output: Tensor, levels: Tensor, channel: int) -> Tensor:
        if self.likelihood == "mixture":
            return LogisticMixture.from_output(output, channels=self.image_shape[0]).conditional_probs(levels, channel)
        return self.conditional_log_probs(output, levels, channel).exp()

    def _moments(self, output: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """[B] each: Σ of means and Σ of variances of log p under the model's conditional distributions."""
        _, height, width = self.image_shape
        # 256 levels times the components of every pixel: a strip of rows at a time bounds the memory.
        rows = max(1, _STRIP // width)
        means, variances = [], []
        for top in range(0, height, rows):
            strip = slice(top, top + rows)
            for channel in range(self.image_shape[0]):
                p = self._conditional_probs(output[:, :, strip], levels[:, :, strip], channel)
                log_p = torch.log(p.clamp(min=1e-12))
                mean = (p * log_p).sum(1)
                means.append(mean.sum((1, 2)))
                variances.append((p * (log_p - mean[:, None]) ** 2).sum(1).sum((1, 2)))
        return torch.stack(means).sum(0), torch.stack(variances).sum(0)

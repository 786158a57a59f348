"""A method of your own: tensors in, scores and maps out. Fitting, calibration, files and the command line come with it.

    python examples/own_method.py

Each pixel is compared with the mean and the deviation of the normal images there: crude, and enough for aligned parts.
"""

import torch
from pydantic import Field
from torch import Tensor

import dracones
from dracones.methods import FitContext, Method, MethodConfig, MethodInfo, Scores, register


class PixelwiseConfig(MethodConfig):
    floor: float = Field(0.02, gt=0, description="least deviation of a pixel, of the range [0, 1]")


@register
class Pixelwise(Method):
    """The largest deviation of any pixel, in its own standard deviations; one option beside those of every method."""

    info = MethodInfo("pixelwise", "An example", ("You",), 2026, "", "likelihood", gives=("score", "map"))
    Config = PixelwiseConfig
    config: PixelwiseConfig
    mean: Tensor
    deviation: Tensor

    def build(self, image_shape: tuple[int, int, int]) -> None:
        """What a fit fills and a file holds."""
        self.register_buffer("mean", torch.zeros(image_shape))
        self.register_buffer("deviation", torch.ones(image_shape))

    def fit_statistics(self, context: FitContext) -> None:
        """Mean and deviation of the training images."""
        images = torch.cat([batch.images for batch in context.train.batches(64)])
        self.mean.copy_(images.mean(0))
        self.deviation.copy_(images.std(0).clamp_min(self.config.floor))

    def forward(self, images: Tensor, host: Tensor | None = None) -> Scores:
        """A pure graph of tensors: it exports as it stands."""
        heat = ((images - self.mean) / self.deviation).abs().amax(1)
        return Scores(heat.flatten(1).amax(1), heat)


def main() -> None:
    noise = torch.randn(300, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    parts = (0.5 + 0.05 * noise).clamp(0, 1)
    scratched = parts[200:205].clone()
    scratched[:, :, 8, 4:12] = 1.0
    detector = dracones.create("pixelwise").fit(parts[:100]).calibrate(parts[100:], false_alarm_rate=0.01)
    verdict = detector.predict(scratched)
    places = [divmod(int(heat.argmax()), 16)[0] for heat in verdict.maps]
    print(f"scratched parts found: {int(verdict.is_anomaly.sum())} of 5; hottest rows: {places}")


if __name__ == "__main__":
    main()

"""A density that is a codec, and one that is blind."""

import json
import math

import pytest
import torch

from dracones import rules
from dracones.anatomy.complexity import complexity
from dracones.densities import Density


class Codec(Density):
    """P(image) = 2^(−bits of its PNG), unless blind: then every image is as likely as the others."""

    def __init__(self, shape, *, blind=False):
        super().__init__(shape)
        self.blind = blind

    @property
    def available_statistics(self):
        return ("log_prob",)

    def forward(self, images, *, names, generator=None):
        bits = rules.complexity(images, "png").double()
        return {"log_prob": -math.log(2) * (torch.full_like(bits, 100) if self.blind else bits)}

    def sample(self, count, *, generator):
        raise AssertionError


def smooth(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 1, 16).expand(count, 1, 16, 16)
    return ((ramp * torch.rand(count, 1, 1, 1, generator=generator)) * 255).round() / 255


def test_a_codecs_likelihood_is_complexity_and_nothing_else(random_images):
    noise = random_images(20, (1, 16, 16))
    noise[:, :, :8] = 0
    found = complexity(Codec((1, 16, 16)), noise, {"smooth": smooth(20)}, codec="png")
    assert found.correlation["all"].value == pytest.approx(1)
    assert found.rank_correlation == pytest.approx(1)
    assert found.auroc_likelihood["smooth"].value == 0
    assert found.auroc_codec["smooth"].value == 0
    # what is left beyond the codec: nothing
    assert found.auroc_difference["smooth"].value == 0.5
    assert found.bits_per_dim["normal"] == pytest.approx(found.codec_bits_per_dim["normal"])


def test_a_blind_density_has_no_correlation_to_speak_of(random_images):
    found = complexity(
        Codec((1, 16, 16), blind=True), random_images(9, (1, 16, 16)), {"smooth": smooth(9)}, codec="png"
    )
    assert found.correlation["all"] is None
    assert found.rank_correlation is None
    assert found.auroc_likelihood["smooth"].value == 0.5
    # 100 bits less the codec's: the simple images now stand out
    assert found.auroc_difference["smooth"].value == 1


def test_difference_is_serras_rule(random_images):
    x, y = random_images(12, (1, 16, 16)), smooth(12)
    density = Codec((1, 16, 16))
    found = complexity(density, x, {"y": y}, codec="webp")
    rule = rules.create("complexity", codec="webp")
    score = {name: rule.score(rules.gather(density, images, rule.requires)) for name, images in (("x", x), ("y", y))}
    wins = (score["y"][:, None] > score["x"][None]).double() + 0.5 * (score["y"][:, None] == score["x"][None]).double()
    assert found.auroc_difference["y"].value == pytest.approx(float(wins.mean()))


def test_figure_and_json(random_images):
    found = complexity(Codec((1, 16, 16)), random_images(9, (1, 16, 16)), {"smooth": smooth(9)}, codec="png")
    found.figure().canvas.draw()
    json.dumps(found.to_json(), allow_nan=False)
    assert [row["set"] for row in found.rows()] == ["normal", "smooth"]

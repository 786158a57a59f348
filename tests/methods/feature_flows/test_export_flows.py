"""The flows that score feature maps are plain graphs: exported with a free batch they give the same numbers."""

import pytest
import torch
from torch import nn

import dracones
from feature_case import SMALL


class Encode(nn.Module):
    """A method's part from feature maps to what is scored."""

    def __init__(self, method, verb):
        super().__init__()
        self.method, self.verb = method, verb

    def forward(self, *maps):
        return getattr(self.method, self.verb)(maps)


class Levels(nn.Module):
    """One flow a level."""

    def __init__(self, flows):
        super().__init__()
        self.flows = flows

    def forward(self, *maps):
        return [flow(level) for flow, level in zip(self.flows, maps, strict=True)]


CASES = {
    "fastflow": (lambda method: Levels(method.flows), {"steps": 2}),
    "cflow": (lambda method: Encode(method, "log_probs"), {"steps": 2, "position_dims": 8}),
    "cflow-rotation": (
        lambda method: Encode(method, "log_probs"),
        {"steps": 2, "position_dims": 8, "mixing": "rotation"},
    ),
    "csflow": (
        lambda method: Encode(method, "encode"),
        {"levels": (1,), "preset": "fast", "hidden": 8, "kernels": (3, 5)},
    ),
    "msflow": (
        lambda method: Encode(method, "log_densities"),
        {"steps": (1, 2), "position_dims": 4, "fusion_hidden": 6},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_exports_with_a_free_batch(name):
    make, options = CASES[name]
    method = dracones.create(name.split("-")[0], **{**SMALL, **options}).method
    method.build((3, 64, 64))
    torch.manual_seed(0)
    for parameter_name, parameter in method.named_parameters():
        if not parameter_name.startswith("extractor"):
            nn.init.normal_(parameter, 0, 0.05)
    module = make(method.eval())
    shapes = list(zip(method.extractor.channels, method.extractor.map_sizes(64, 64), strict=True))

    def maps(count):
        generator = torch.Generator().manual_seed(count)
        return tuple(torch.randn(count, width, *size, generator=generator) for width, size in shapes)

    free = {0: torch.export.Dim("batch", min=1, max=64)}
    with torch.no_grad():
        exported = torch.export.export(module, maps(3), dynamic_shapes=(tuple(free for _ in shapes),)).module()
        for count in (1, 7):
            torch.testing.assert_close(exported(*maps(count)), module(*maps(count)), rtol=1e-5, atol=1e-6)

"""MSFlow: exact inverse and log-det through all levels, score by hand, independence of test images."""

import numpy as np
import pytest
import torch
from torch import nn

import dracones
from dracones.methods.feature_flows.csflow import CrossScaleStep
from dracones.methods.feature_flows.msflow import PositionedConvNet
from feature_case import SMALL, anomalies, normals

TINY = {**SMALL, "steps": (1, 2), "position_dims": 4, "fusion_hidden": 6}


def built(**options):
    method = dracones.create("msflow", **{**TINY, **options}).method
    method.build((3, 64, 64))
    torch.manual_seed(5)
    for module in (method.flows, method.fusion):
        for parameter in module.parameters():
            nn.init.normal_(parameter, 0, 0.1)
    return method.eval()


def test_inverse_is_exact_and_log_det_is_the_jacobians():
    method = built(padding="zeros").double()
    sizes = ((32, 2, 2), (64, 1, 1))
    generator = torch.Generator().manual_seed(0)
    maps = tuple(torch.randn(1, *size, generator=generator, dtype=torch.float64) for size in sizes)
    with torch.no_grad():
        latents, log_dets = method.encode(maps)
        for back, x in zip(method.decode(latents), maps, strict=True):
            torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)

    def flat(vector):
        parts = vector.split([int(np.prod(size)) for size in sizes])
        z, _ = method.encode(tuple(part.view(1, *size) for part, size in zip(parts, sizes, strict=True)))
        return torch.cat([level.flatten() for level in z])

    jacobian = torch.autograd.functional.jacobian(flat, torch.cat([level.flatten() for level in maps]))
    total = torch.stack([share.sum() for share in log_dets]).sum()
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1].detach(), total, rtol=1e-8, atol=1e-8)


def test_levels_of_different_width_join():
    step = CrossScaleStep((4, 7), hidden=3, kernel=3, clamp=1.9, generator=torch.Generator().manual_seed(0)).double()
    for parameter in step.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    x = (torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.randn(2, 7, 3, 3, dtype=torch.float64))
    z, log_det = step.encode(x)
    back, same = step.decode(z)
    for a, b in zip((*back, *same), (*x, *log_det), strict=True):
        torch.testing.assert_close(a, b)


def test_scores_follow_the_formulas_and_not_other_images():
    method = built(top_share=0.1)
    method.highest.copy_(torch.tensor([-0.1, -0.2]))
    images, _ = anomalies(2)
    with torch.no_grad():
        scores = method(images)
        alone = torch.cat([method(image[None]).image for image in images])
        levels = method.log_densities(method.extractor(images))
    up = [nn.functional.interpolate(level[:, None], size=(64, 64), mode="bilinear")[:, 0].numpy() for level in levels]
    expected = (1 - np.exp(up[0] + 0.1)) + (1 - np.exp(up[1] + 0.2))
    np.testing.assert_allclose(scores.map.numpy(), expected, rtol=1e-4, atol=1e-5)
    joint = (up[0] + up[1]).reshape(2, -1)
    product = np.sort(1 - np.exp(joint - joint.max(axis=1, keepdims=True)), axis=1)[:, -410:].mean(1)
    np.testing.assert_allclose(scores.image.numpy(), product, rtol=1e-4)
    torch.testing.assert_close(scores.image, alone, rtol=1e-4, atol=1e-5)


def test_fit_knows_other_images_and_saves(tmp_path):
    # At a border of zeros noise stands out within its own image; reflected, it is as odd everywhere.
    options = {"epochs": 6, "learning_rate": 2e-3, "batch_size": 8, "padding": "zeros"}
    detector = dracones.create("msflow", **TINY, **options).fit(normals(40))
    noise = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loud, calm = detector.predict(noise), detector.predict(normals(8, seed=9))
    assert loud.scores.min() > calm.scores.max()
    assert loud.maps[0].mean() > max(heat.mean() for heat in calm.maps)
    again = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.predict(noise).scores, loud.scores)


def test_steps_must_match_levels():
    with pytest.raises(ValueError, match="2 levels, steps="):
        dracones.create("msflow", **{**TINY, "steps": (2, 5, 8)}).method.build((3, 64, 64))


def test_each_positions_channels_are_normalised_alone():
    """As in the paper's code: what other positions hold does not change what a network answers at this one."""
    network = PositionedConvNet(6, 3)
    nn.init.normal_(network.last.weight, 0, 0.3)
    with torch.no_grad():
        maps = torch.randn(2, 6, 9, 9)
        elsewhere = maps.clone()
        elsewhere[:, :, 6:] *= 30
        torch.testing.assert_close(network(elsewhere)[:, :, :4], network(maps)[:, :, :4])
        first = network.first(maps)
        normal = (first - first.mean(1, keepdim=True)) / (first.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(network(maps), network.last(normal.relu()))


def test_flows_that_normalised_over_positions_too_are_refused():
    method = built()
    names = list(method.state_dict())
    method.refuse_outdated(names)
    with pytest.raises(ValueError, match=r"each position's channels: fit it again"):
        method.refuse_outdated([name.replace("over_channels", "norm") for name in names])


def test_maps_too_small_to_be_reflected_are_refused_by_name():
    method = dracones.create("msflow", **TINY).method
    with pytest.raises(ValueError, match=r"msflow: padding='reflect' needs maps of 3x3 .* padding='zeros'"):
        method.build_on((32, 64), ((8, 8), (2, 2)))

"""CFLOW-AD's maths: golden score, exact log-density given the position, chunks, independence of test images."""

import numpy as np
import pytest
import torch
from torch import nn

import dracones
from dracones.features import ComputedFeatures, StoredFeatures, sinusoidal_position
from dracones.methods.feature_flows.cflow import PositionedMLP
from dracones.methods.feature_flows.vectors import FeatureVectors
from feature_case import SMALL, anomalies, normals


def built(**options):
    method = dracones.create("cflow", **{**SMALL, "steps": 2, "position_dims": 8, **options}).method
    method.build((3, 64, 64))
    torch.manual_seed(7)
    for parameter in method.flows.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    return method.eval()


@pytest.mark.parametrize("heat", ["probability", "likelihood"])
@pytest.mark.parametrize("mixing", ["permutation", "rotation"])
def test_score_of_a_tiny_frozen_case_by_hand(mixing, heat):
    method = built(levels=(2,), mixing=mixing, heat=heat)
    method.highest.fill_(-0.5)
    channels, height, width = 64, 2, 3
    level = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0))
    codes = sinusoidal_position(8, height, width).numpy().astype(np.float64)
    expected = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            x, log_det = level[0, :, row, column].numpy().astype(np.float64), 0.0
            for step in method.flows[0].steps:
                net = {
                    key: value.detach().numpy().astype(np.float64)
                    for key, value in step.coupling.conditioner.state_dict().items()
                }
                hidden = (
                    net["vector.weight"] @ x[:32] + net["vector.bias"] + net["position.weight"] @ codes[:, row, column]
                )
                raw = net["last.weight"] @ np.maximum(hidden, 0) + net["last.bias"]
                s = 1.9 * np.tanh(0.1 * raw[:32])
                y = np.concatenate((x[:32], x[32:] * np.exp(s) + 0.1 * raw[32:]))
                scale = step.affine.log_scale.detach().numpy().astype(np.float64)
                y = y * np.exp(scale) + step.affine.shift.detach().numpy()
                mixing_ = (step.mix.index if mixing == "permutation" else step.mix.matrix).numpy()
                x = y[mixing_] if mixing_.ndim == 1 else mixing_.astype(np.float64) @ y
                log_det += s.sum() + scale.sum()
            log_prob = (log_det - 0.5 * (x**2).sum()) / channels - 0.5 * np.log(2 * np.pi)
            expected[row, column] = 1 - np.exp(log_prob + 0.5) if heat == "probability" else -0.5 - log_prob
    with torch.no_grad():
        got = method.heat((level,), (height, width))[0].numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_two_parts_of_the_first_layer_are_one_on_vector_and_code():
    torch.manual_seed(0)
    network = PositionedMLP(11, 4, hidden=10, context_features=8)
    nn.init.normal_(network.last.weight)
    maps, codes = torch.randn(3, 3, 2, 5), torch.randn(1, 8, 2, 5)
    whole = nn.Conv2d(11, 10, 1)
    with torch.no_grad():
        whole.weight.copy_(torch.cat((network.vector.weight, network.position.weight), 1)[:, :, None, None])
        whole.bias.copy_(network.vector.bias)
    hidden = whole(torch.cat((maps, codes.expand(3, -1, -1, -1)), 1)).relu()
    expected = network.last(hidden.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(network(maps, codes), expected)


def test_vectors_and_maps_have_one_log_density():
    for mixing in ("permutation", "rotation"):
        flow = built(levels=(2,), mixing=mixing).flows[0]
        vectors, codes = torch.randn(6, 64), torch.randn(3, 8)
        maps, shared = vectors.view(2, 3, 64).movedim(1, -1)[..., None], codes.T[None, :, :, None]
        expected = flow.log_prob(vectors, codes.repeat(2, 1)).view(2, 3, 1)
        torch.testing.assert_close(flow.log_prob(maps, shared), expected)


def test_scores_do_not_look_at_other_test_images():
    method = built()
    method.highest.fill_(-0.5)
    images, _ = anomalies(4)
    with torch.no_grad():
        together = method(images).image
        alone = torch.cat([method(image[None]).image for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_highest_density_of_training_images_becomes_zero_heat():
    detector = dracones.create(
        "cflow", **SMALL, steps=2, epochs=1, chunks=4, batch_size=8, calibration_share=0, validation_share=0
    )
    images = normals(12)
    detector.fit(images)
    with torch.no_grad():
        tops = torch.stack([level.max() for level in detector.method.log_probs(detector.method.extractor(images))])
    torch.testing.assert_close(detector.method.highest, tops, rtol=1e-3, atol=1e-3)


def test_density_integrates_to_one():
    """exp(C log p) over a fine grid of two-dimensional vectors, for some position."""
    method = built(levels=(2,))
    from dracones.methods.feature_flows.cflow import VectorFlow

    torch.manual_seed(1)
    flow = VectorFlow(2, method.config, torch.Generator().manual_seed(0))
    for parameter in flow.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    axis = torch.linspace(-30, 30, 601)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = torch.exp(2 * flow.log_prob(grid, torch.randn(1, 8)))
    assert float(density.sum() * 0.1**2) == pytest.approx(1, abs=0.01)


def stored(images=3):
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(images, *shape, generator=generator).numpy() for shape in ((4, 4, 3), (2, 2, 5))]
    return StoredFeatures(levels)


def test_chunks_deal_every_vector_once_an_epoch():
    features = stored()
    vectors = FeatureVectors(features, chunks=4, seed=0)
    assert len(vectors) == 12
    for level, array in enumerate(features.levels):
        seen = vectors.batch(torch.randperm(12, generator=torch.Generator().manual_seed(1)))[level]
        assert seen.size == array.shape[1:3]
        flat = array.reshape(-1, array.shape[-1])
        assert len(seen.vectors) == len(flat)
        np.testing.assert_array_equal(np.unique(seen.vectors.numpy(), axis=0), np.unique(flat, axis=0))
    first = vectors[5][0]  # image 1, share 1
    np.testing.assert_array_equal(first.vectors.numpy(), features.levels[0][1].reshape(16, 3)[first.rows])


def test_chunks_never_exceed_the_positions_of_the_coarsest_level():
    assert FeatureVectors(stored(), chunks=100, seed=0).chunks == 4


def test_chunks_of_features_computed_on_the_fly_are_the_same():
    class Extractor(nn.Module):
        mean = torch.zeros(1)

        def forward(self, images):
            return (images, images[:, :, ::2, ::2])

    class Images:
        def __init__(self, images):
            self.images = images

        def __len__(self):
            return len(self.images)

        def subset(self, indices):
            return Images(self.images[torch.as_tensor(indices)])

        def batches(self, size):
            from types import SimpleNamespace

            yield SimpleNamespace(images=self.images, indices=torch.arange(len(self)))

    images = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    computed = ComputedFeatures(Extractor(), Images(images))
    kept = StoredFeatures([level.permute(0, 2, 3, 1).numpy() for level in Extractor()(images)])
    indices = torch.tensor([7, 0, 6, 11])
    for a, b in zip(
        FeatureVectors(computed, 4, 0).batch(indices), FeatureVectors(kept, 4, 0).batch(indices), strict=True
    ):
        assert torch.equal(a.vectors, b.vectors)
        assert torch.equal(a.rows, b.rows)

"""The second-order prediction where it is exact, and the Hessian against autograd."""

import json

import pytest
import torch

from dracones import densities
from dracones.anatomy.curvature import hessian_vector_products, linear_gains, published_gains
from dracones.anatomy.second_order import second_order
from dracones.flows import ActNorm, InvertibleConv1x1


def images(count, shape, spread, centre=128, seed=0):
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)) * spread
    return (centre + noise).round().clamp(0, 255) / 255


def covariance(size):
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).double() * 0.1
    return root @ root.T + 0.05 * torch.eye(size).double()


def test_for_a_normal_density_prediction_and_measurement_are_the_same_number(normal_density):
    shape = (1, 2, 3)
    density = normal_density(shape, torch.full((6,), 0.4), covariance(6))
    normal, other = images(90, shape, 30), images(70, shape, 12, centre=150, seed=1)
    found = second_order(density, normal.double(), {"other": other.double()}, count=1000, probes=512).others["other"]
    # log p is quadratic: trace and mean terms are all there is, but for the 1/(N − 1) of the sample covariances
    unbiased = found.predicted.value + found.mean_terms
    assert found.measured.value == pytest.approx(unbiased, rel=0.03)
    assert found.published_formula is None
    hessian = -torch.linalg.inv(density.covariance)
    points = {name: density.dequantise(x.double())[0].flatten(1) for name, x in (("p", normal), ("q", other))}
    exact = 0.5 * torch.trace(hessian @ (points["q"].T.cov() - points["p"].T.cov()))
    assert found.predicted.value == pytest.approx(float(exact), rel=1e-6)
    diagonal = 0.5 * (hessian.diagonal() * (points["q"].var(0) - points["p"].var(0))).sum()
    standard_error = (found.predicted_diagonal.high - found.predicted_diagonal.low) / 4
    assert found.predicted_diagonal.value == pytest.approx(float(diagonal), abs=4 * standard_error)
    assert standard_error < 0.02 * abs(float(diagonal))


def test_a_set_of_lower_variance_about_the_same_mean_is_predicted_likelier(normal_density):
    shape = (1, 2, 2)
    density = normal_density(shape, torch.full((4,), 0.5), torch.eye(4) * 0.01)
    found = second_order(density, images(200, shape, 40), {"pale": images(200, shape, 8)}, probes=2)
    pale = found.others["pale"]
    assert pale.variance_gap.high < 0 < pale.predicted.low
    assert pale.measured.low > 0
    (words,) = found.in_words()
    assert words.startswith("pale varies less than the normal images; the prediction has the right sign and size.")
    assert found.holds_up_to("pale") == 1
    # the Hessian is −100 on the diagonal alone: every probe gives the same, exact number
    assert pale.predicted_diagonal.high - pale.predicted_diagonal.low == pytest.approx(0, abs=1e-9)
    # 8-bit levels to the cube: pixels shrink by 255/256
    assert pale.predicted_diagonal.value == pytest.approx(-50 * pale.variance_gap.value * (255 / 256) ** 2, rel=1e-6)


def test_the_expansion_is_trusted_only_as_far_as_it_predicts():
    density = densities.create("glow", image_shape=(1, 4, 4), steps=1, hidden=4, levels=1, margin=1e-4).eval()
    # far from the centre the logit bends: a parabola at the mean image says too little of what happens at the edges
    normal, other = images(60, (1, 4, 4), 400), images(60, (1, 4, 4), 4, seed=1)
    found = second_order(density, normal, {"pale": other}, probes=2)
    curve = {each.contrast: each for each in found.shrinking["normal"]}
    assert curve[0.06].holds
    assert not curve[1.0].holds
    up_to = found.holds_up_to("pale")
    assert up_to is not None
    assert 0.06 <= up_to < 1
    assert [each.holds for each in found.shrinking["normal"] if each.contrast <= up_to] == [True] * sum(
        contrast <= up_to for contrast in curve
    )
    (words,) = found.in_words()
    assert f"the expansion holds up to contrast {up_to:g} only, so at full contrast it explains nothing" in words
    # the curve is what it says: mean log p of the shrunk images less log p of the mean image
    points = density.dequantise(normal)[0]
    centre = points.mean(0)
    shrunk = (centre + 0.25 * (points - centre)).clamp(0, 1)
    measured = (density.log_prob_at(shrunk) - density.log_prob_at(centre[None])).mean()
    assert curve[0.25].measured.value == pytest.approx(measured.item(), rel=1e-3)


def test_with_the_means_aligned_only_the_spread_is_left(normal_density):
    shape = (1, 2, 2)
    density = normal_density(shape, torch.full((4,), 0.5), torch.eye(4) * 0.01)
    normal = images(200, shape, 20)
    moved = images(200, shape, 20) - 20 / 255
    found = second_order(density, normal.double(), {"moved": moved.double()}, probes=2).others["moved"]
    assert found.measured.high < -0.5
    assert found.aligned.value == pytest.approx(0, abs=1e-6)


def test_what_takes_pixels_for_uncorrelated_says_so():
    density = random_glow(1, (1, 4, 4)).float()
    found = second_order(density, images(9, (1, 4, 4), 30), {"a": images(9, (1, 4, 4), 9)}, probes=2)
    marked = [title for title in found.rows()[0] if "assumes uncorrelated pixels" in title]
    assert [title.split(" (")[0] for title in marked] == ["diagonal", "published formula", "exact gains"]
    assert found.figure().axes[0].get_xscale() == "symlog"
    assert "assumes uncorrelated pixels" in found.figure().axes[-1].get_xlabel()
    assert len(found.shrink_rows()) == 2 * 8
    found.shrink_figure().canvas.draw()


def test_the_variance_gap_is_the_sum_of_variance_differences():
    density = densities.create("glow", image_shape=(3, 4, 4), steps=1, hidden=4, levels=1)
    normal, other = images(30, (3, 4, 4), 30), images(20, (3, 4, 4), 10, seed=1)
    found = second_order(density, normal, {"other": other}, probes=2, count=4).others["other"]
    expected = (other.var(0) - normal.var(0)).double()
    assert found.variance_gap.value == pytest.approx(float(expected.sum()), rel=1e-5)
    for channel, gap in enumerate(found.variance_gap_by_channel):
        assert gap.value == pytest.approx(float(expected[channel].sum()), rel=1e-5)


def random_glow(levels=1, shape=(1, 4, 4), **options):
    density = densities.create(
        "glow", image_shape=shape, steps=2, hidden=4, levels=levels, coupling="additive", **options
    ).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in density.flow.modules():
            if isinstance(layer, ActNorm):
                layer.log_scale.copy_(torch.randn(layer.log_scale.shape, generator=generator) * 0.2)
                layer.shift.copy_(torch.randn(layer.shift.shape, generator=generator) * 0.2)
    return density.eval()


@pytest.mark.parametrize(("levels", "shape"), [(1, (1, 4, 4)), (2, (1, 4, 8)), (2, (2, 4, 4))])
def test_for_a_linear_flow_the_formula_with_exact_gains_is_the_trace(levels, shape):
    # couplings start as the identity, so this Glow is linear after the logit
    density = random_glow(levels, shape)
    normal, other = images(50, shape, 30).double(), images(50, shape, 10, centre=100, seed=1).double()
    point = density.dequantise(normal)[0].mean(0)
    size = point.numel()
    hessian = torch.autograd.functional.hessian(lambda x: density.log_prob_at(x[None]).sum(), point).reshape(size, size)
    difference = (density.dequantise(other)[0].var(0) - density.dequantise(normal)[0].var(0)).flatten()
    expected = 0.5 * (hessian.diagonal() * difference).sum()
    found = second_order(density, normal, {"other": other}, probes=4).others["other"]
    assert found.linear_formula == pytest.approx(float(expected), rel=1e-8)


def test_published_gains_are_products_of_row_sums():
    density = random_glow(1, (1, 4, 4))
    matrices = [layer.matrix()[0] for layer in density.flow.modules() if isinstance(layer, InvertibleConv1x1)]
    sums = matrices[0].sum(1) * matrices[1].sum(1)
    # channel 2i + j of the squeezed image is the pixel in row i, column j of each block
    torch.testing.assert_close(published_gains(density), sums.reshape(1, 2, 2).repeat(1, 2, 2))


def test_linear_gains_are_the_columns_of_the_jacobian():
    density = random_glow(2, (1, 4, 4))
    jacobian = torch.autograd.functional.jacobian(
        lambda x: torch.cat([z.flatten() for z in density.flow.encode(x)[0]]), torch.zeros(1, 1, 4, 4).double()
    )
    torch.testing.assert_close(linear_gains(density), jacobian.reshape(16, 16).norm(dim=0).reshape(1, 4, 4))


@pytest.mark.parametrize("memory", ["standard", "constant"])
def test_hessian_vector_products_are_autograds(memory):
    density = densities.create("glow", image_shape=(1, 4, 4), steps=2, hidden=6, levels=1, memory=memory).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    point = torch.rand(1, 4, 4, generator=generator).double() * 0.6 + 0.2
    vectors = torch.randn(3, 1, 4, 4, generator=generator).double()
    products = hessian_vector_products(density, point, vectors, batch_size=2)
    plain = densities.create("glow", image_shape=(1, 4, 4), steps=2, hidden=6, levels=1).double().eval()
    plain.load_state_dict(density.state_dict())
    hessian = torch.autograd.functional.hessian(lambda x: plain.log_prob_at(x[None]).sum(), point).reshape(16, 16)
    torch.testing.assert_close(products.flatten(1), vectors.flatten(1) @ hessian, rtol=1e-6, atol=1e-6)
    chain = density.flow.bijection.levels[0]
    assert chain.memory == memory


def test_figures_and_json():
    density = random_glow(1, (3, 4, 4)).float()
    found = second_order(
        density, images(9, (3, 4, 4), 30), {"a": images(9, (3, 4, 4), 9), "b": images(9, (3, 4, 4), 5)}
    )
    found.figure().canvas.draw()
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(record["others"]) == {"a", "b"}
    assert len(found.rows()) == 2


def test_densities_of_levels_are_refused_by_name(random_images):
    x = random_images(4, (1, 8, 8))
    for name in ("pixelcnn", "vae"):
        with pytest.raises(TypeError, match=r'one of pixel levels\. Densities .* vae with likelihood="ga'):
            second_order(densities.create(name, image_shape=(1, 8, 8)), x, {"x": x})
    continuous = densities.create("vae", image_shape=(1, 8, 8), likelihood="gaussian", latents=2, width=4, stages=1)
    assert second_order(continuous, x, {"x": x}, probes=2).others["x"].measured.value == 0


def test_formulas_are_refused_for_flows_that_scale():
    affine = densities.create("glow", image_shape=(1, 4, 4), steps=1, hidden=4, levels=1)
    for gains in (published_gains, linear_gains):
        with pytest.raises(TypeError, match=r"constant-volume Glow.* 1 couplings that scale"):
            gains(affine)

"""The flow on pooled features: exact likelihood, pooling, invertibility."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn
from torch.func import jacrev

import dracones
from dracones.detectors import update
from dracones.features import FeatureExtractor, StatisticPool
from dracones.methods.feature_flows.whitening import Whitening
from feature_case import SMALL, normals

TINY = {**SMALL, "levels": (1,), "couplings": 3, "hidden": 8}


def built(**options):
    method = dracones.create("embedding_flow", **{**TINY, **options}).method
    method.build((3, 64, 64))
    torch.manual_seed(2)
    for parameter in method.flow.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return method.eval()


def test_pooled_statistics_are_numpys():
    extractor = FeatureExtractor("mobilenetv1_025", levels=(1, 2), weights="random")
    images = normals(2)
    (pooled,) = StatisticPool(extractor, ("std", "mean", "max"))(images)
    maps = [level.numpy() for level in extractor(images)]
    expected = [f(level, axis=(2, 3)) for level in maps for f in (np.std, np.mean, np.max)]
    np.testing.assert_allclose(pooled.numpy(), np.concatenate(expected, 1), rtol=1e-4, atol=1e-6)


def test_log_prob_is_the_change_of_variables_formula():
    method = built()
    images = normals(2)
    (embedding,) = method.pool()(images)  # the whitening is still the identity
    flow = method.flow.double()
    x = embedding.double()
    for image in range(2):
        with torch.no_grad():
            (z,), _ = flow.encode(x[image : image + 1])
        jacobian = jacrev(lambda v: flow.encode(v[None])[0][0][0])(x[image])
        expected = multivariate_normal(np.zeros(32)).logpdf(z[0].numpy())
        expected = expected + float(torch.linalg.slogdet(jacobian)[1].detach())
        assert float(flow.log_prob(x[image : image + 1])[0]) == pytest.approx(expected, rel=1e-6)
    method.flow.float()
    with torch.no_grad():
        torch.testing.assert_close(method(images).image, -method.log_prob(images) / 32)


def test_flow_is_invertible_in_float64():
    flow = built().flow.double()
    x = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents, _ = flow.encode(x)
        torch.testing.assert_close(flow.decode(latents), x, rtol=1e-9, atol=1e-9)


def test_fit_knows_other_images_and_saves(tmp_path):
    detector = dracones.create("embedding_flow", **TINY, pooling=("mean", "std"), epochs=60).fit(normals(60))
    noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loud, calm = detector.predict(noise), detector.predict(normals(8, seed=9))
    assert loud.scores.min() > calm.scores.max()
    assert loud.maps is None
    again = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.predict(noise).scores, loud.scores)


def test_before_training_the_score_is_the_mahalanobis_distance():
    images = normals(60)
    options = {**TINY, "validation_share": 0.0, "calibration_share": 0.0}
    detector = dracones.create("embedding_flow", **options, epochs=1, learning_rate=1e-12).fit(images)
    (embedding,) = detector.method.pool()(images)
    x = embedding.double().numpy()
    covariance = np.cov(x.T)
    covariance += 0.01 * np.diag(covariance).mean() * np.eye(32)
    expected = -multivariate_normal(x.mean(0), covariance).logpdf(x) / 32
    np.testing.assert_allclose(detector.predict(images).scores, expected, rtol=1e-2, atol=1e-2)


def test_several_sizes_are_embedded_together():
    method = built(scales=2)
    assert method.dims == 64
    with torch.no_grad():
        assert torch.isfinite(method(normals(2)).image).all()


def test_backbone_and_flow_pass_gradients_to_the_image_when_asked():
    method = built()
    x = normals(1).requires_grad_()
    (embedding,) = method.pool()(x)
    method.flow.log_prob(embedding).sum().backward()
    assert x.grad.abs().sum() > 0


def test_without_couplings_it_is_the_gaussian_and_nothing_is_trained():
    images = normals(60)
    detector = dracones.create("embedding_flow", **{**TINY, "couplings": 0, "pooling": ("mean", "std")}).fit(images)
    assert detector.provenance["training"] == []
    method = detector.method
    with torch.no_grad():
        (vectors,) = method.pool()(images)
        expected = torch.distributions.MultivariateNormal(
            method.whitening.mean, scale_tril=torch.linalg.inv(method.whitening.matrix).tril()
        ).log_prob(vectors)
        torch.testing.assert_close(method.log_prob(images), expected, rtol=1e-4, atol=1e-2)


def test_the_gaussian_that_learnt_on_is_that_of_a_fit_on_all_images(tmp_path):
    options = {**TINY, "couplings": 0, "validation_share": 0.0, "calibration_share": 0.0}
    first, more = normals(40), normals(30, seed=3)
    detector = dracones.create("embedding_flow", **options).fit(first)
    new, said = update(dracones.load(detector.save(tmp_path / "m.safetensors")), more, calibrate=normals(99, seed=5))
    whole = dracones.create("embedding_flow", **options).fit(torch.cat([first, more]))
    assert said == ("embedding_flow: the Gaussian of 70 images, of which 30 are new",)
    assert int(new.method.count) == int(whole.method.count) == 70
    images = normals(8, seed=9)
    before, after, asked = (one.predict(images).scores for one in (detector, new, whole))
    np.testing.assert_allclose(after, asked, rtol=1e-3, atol=1e-3)
    assert np.abs(before - asked).max() > 0.01, "the further images should matter"


def test_whitening_that_learnt_on_knows_that_the_mean_has_moved():
    first, more = torch.randn(50, 4), torch.randn(30, 4) * 2 + 3
    alone, whole = Whitening(4), Whitening(4)
    alone.fit(first)
    alone.learn_on(more, 50)
    whole.fit(torch.cat([first, more]))
    torch.testing.assert_close(alone.mean, whole.mean)
    torch.testing.assert_close(alone.matrix, whole.matrix, rtol=1e-4, atol=1e-5)


def test_couplings_would_forget_and_a_gaussian_without_its_count_says_so():
    images = normals(40)
    with pytest.raises(TypeError, match="embedding_flow cannot learn on"):
        update(dracones.create("embedding_flow", **TINY, epochs=1).fit(images), normals(20, seed=3))
    old = dracones.create("embedding_flow", **{**TINY, "couplings": 0}).fit(images)
    old.method.count = None
    with pytest.raises(ValueError, match="does not say how many images"):
        update(old, normals(20, seed=3))


def test_training_that_only_overfits_leaves_the_gaussian_it_began_with():
    """Of few images a flow learns by heart: what it ends as is no worse for held-out images than its start."""
    images = normals(30)
    common = {**SMALL, "levels": (1,), "calibration_share": 0, "validation_share": 0.2}
    flow = dracones.create("embedding_flow", **common, learning_rate=0.3, epochs=30).fit(images)
    (training,) = flow.provenance["training"]
    assert training["best_step"] == 0
    assert training["stopped_by"] == "patience"
    gaussian = dracones.create("embedding_flow", **common, couplings=0).fit(images)
    np.testing.assert_allclose(flow.score(images).image, gaussian.score(images).image, rtol=1e-5)

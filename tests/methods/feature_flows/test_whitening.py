"""Whitening: the Gaussian of the training vectors, exactly."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from dracones.methods.feature_flows.whitening import Whitening


def vectors(count=50, dims=4):
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(dims, dims, generator=generator)
    return torch.randn(count, dims, generator=generator) @ mixing + 5


def test_density_behind_a_standard_normal_is_scipys_gaussian():
    x = vectors()
    whitening = Whitening(4, ridge=0.1).double()
    whitening.fit(x)
    z, log_det = whitening.encode(x.double())
    got = multivariate_normal(np.zeros(4)).logpdf(z.numpy()) + log_det.numpy()
    covariance = np.cov(x.double().numpy().T)
    covariance += 0.1 * np.diag(covariance).mean() * np.eye(4)
    expected = multivariate_normal(x.double().numpy().mean(0), covariance).logpdf(x.double().numpy())
    np.testing.assert_allclose(got, expected, rtol=1e-8)


def test_inverse_and_log_det():
    whitening = Whitening(4).double()
    whitening.fit(vectors())
    x = vectors(3).double()
    z, log_det = whitening.encode(x)
    back, same = whitening.decode(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(same, log_det)
    jacobian = torch.autograd.functional.jacobian(lambda v: whitening.encode(v[None])[0][0], x[0])
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[0])


def test_new_is_identity_few_vectors_do_and_one_does_not():
    whitening = Whitening(6)
    x = vectors(3, 6)
    assert torch.equal(whitening.encode(x)[0], x)
    whitening.fit(x)
    assert torch.isfinite(whitening.encode(x)[0]).all()
    Whitening(6).fit(torch.ones(4, 6))
    with pytest.raises(ValueError, match="at least 2 vectors; got 1"):
        whitening.fit(x[:1])


def test_matrix_product_keeps_its_digits_in_mixed_precision():
    whitening = Whitening(4)
    whitening.fit(vectors())
    x = vectors(3)
    exact, _ = whitening.encode(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(whitening.encode(x)[0], exact)

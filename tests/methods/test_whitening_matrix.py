"""The whitening matrix: an inverse factor, for one covariance or many, and one rule where nothing varies."""

import pytest
import torch

from dracones.methods.whitening import covariance_behind, left_out, whitening_matrix


def covariances(count=3, dims=4):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(count, 50, dims, generator=generator, dtype=torch.float64)
    return torch.stack([torch.cov(each.T) for each in vectors])


def test_it_is_the_lower_factor_of_the_ridged_inverse():
    covariance = covariances(1)[0]
    matrix = whitening_matrix(covariance, 0.1)
    ridged = covariance + 0.1 * covariance.diagonal().mean() * torch.eye(4)
    torch.testing.assert_close(matrix.T @ matrix, torch.linalg.inv(ridged))
    assert torch.equal(matrix, matrix.tril())


def test_many_at_once_are_each_alone_with_one_variance():
    many = covariances()
    variance = many.diagonal(dim1=1, dim2=2).mean().item()
    together = whitening_matrix(many, 0.1)
    for matrix, covariance in zip(together, many, strict=True):
        torch.testing.assert_close(matrix, whitening_matrix(covariance, 0.1, variance=variance))


def test_float32_is_factored_in_float64_and_left_as_it_was():
    covariance = covariances(1)[0].float()
    before = covariance.clone()
    matrix = whitening_matrix(covariance, 0.1)
    assert matrix.dtype == torch.float64
    assert torch.equal(matrix, whitening_matrix(covariance.double(), 0.1))
    assert torch.equal(covariance, before)


def test_scaled_features_are_at_the_same_distance():
    covariance = covariances(1)[0]
    torch.testing.assert_close(100 * whitening_matrix(1e4 * covariance, 0.1), whitening_matrix(covariance, 0.1))


def test_where_nothing_varies_the_ridge_is_the_variance():
    torch.testing.assert_close(whitening_matrix(torch.zeros(2, 2), 0.25), 2 * torch.eye(2, dtype=torch.float64))


def test_a_singular_covariance_is_named():
    with pytest.raises(ValueError, match=r"the 3 features is singular at ridge=0.0"):
        whitening_matrix(torch.diag(torch.tensor([1.0, 0.0, 1.0])), 0.0)


@pytest.mark.parametrize("at_once", [1, 2, 256])
def test_the_covariance_behind_many_is_theirs(at_once):
    many = covariances()
    matrix = whitening_matrix(many, 0.1).float()
    torch.testing.assert_close(covariance_behind(matrix, 0.1, at_once=at_once), many, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(covariance_behind(whitening_matrix(many[0], 0.1), 0.1), many[0])


@pytest.mark.parametrize(("count", "dims", "off"), [(40, 5, 0.005), (12, 30, 0.13)])
def test_a_vector_left_out_lies_as_far_as_from_a_gaussian_of_the_others(count, dims, off):
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(count, dims, generator=generator, dtype=torch.float64) * torch.arange(1, dims + 1)

    def squares(some, learnt):
        matrix = whitening_matrix(torch.cov(learnt.T), 0.01)
        return ((some - learnt.mean(dim=0)) @ matrix.T).square().sum(dim=1)

    told = left_out(squares(vectors, vectors), count)
    anew = torch.cat([squares(vectors[i : i + 1], vectors[torch.arange(count) != i]) for i in range(count)])
    torch.testing.assert_close(told, anew, rtol=off, atol=0)
    assert (told > squares(vectors, vectors)).all()


def test_rounding_leaves_a_finite_distance():
    assert torch.isfinite(left_out(torch.tensor([81 / 10 + 1e-3]), 10)).all()

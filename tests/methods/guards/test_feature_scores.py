"""Distances and subspaces of features against scipy, scikit-learn and numpy."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors as SklearnNeighbors

from dracones.methods import load_state
from dracones.methods.guards import FeatureDensity, Knn, LinearHead, Mahalanobis, RelativeMahalanobis, Residual, Vim
from dracones.methods.guards.subspace import principal_dimensions

CLASSES, WIDTH = 4, 6
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(CLASSES, WIDTH)) * 3
LABELS = np.arange(200) % CLASSES
TRAIN = CENTRES[LABELS] + RNG.normal(size=(200, WIDTH)) @ np.diag([1, 2, 0.5, 1, 1, 0.1])
TEST = RNG.normal(size=(50, WIDTH)) * 3
HEAD = LinearHead(torch.from_numpy(RNG.normal(size=(CLASSES, WIDTH))), torch.from_numpy(RNG.normal(size=CLASSES)))


def outputs(features):
    z = torch.from_numpy(np.asarray(features)).float()
    return HEAD(z), z


def labels():
    return torch.from_numpy(LABELS)


def within_and_means(train=TRAIN):
    means = np.stack([train[k == LABELS].mean(0) for k in range(CLASSES)])
    centred = train - means[LABELS]
    return centred.T @ centred / len(train), means


def test_mahalanobis_is_scipys():
    covariance, means = within_and_means()
    expected = cdist(TEST, means, "mahalanobis", VI=np.linalg.inv(covariance)).min(1) ** 2
    got = Mahalanobis(ridge=0.0).fit_outputs(*outputs(TRAIN), labels=labels()).score_outputs(*outputs(TEST))
    np.testing.assert_allclose(got, expected, rtol=2e-4)


def test_relative_mahalanobis_is_scipys():
    covariance, means = within_and_means()
    total = np.cov(TRAIN.T, bias=True)
    nearest = cdist(TEST, means, "mahalanobis", VI=np.linalg.inv(covariance)).min(1) ** 2
    background = cdist(TEST, TRAIN.mean(0)[None], "mahalanobis", VI=np.linalg.inv(total))[:, 0] ** 2
    got = RelativeMahalanobis(ridge=0.0).fit_outputs(*outputs(TRAIN), labels=labels()).score_outputs(*outputs(TEST))
    np.testing.assert_allclose(got, nearest - background, rtol=2e-4, atol=1e-3)


@pytest.mark.parametrize("method", [Mahalanobis, RelativeMahalanobis])
@pytest.mark.parametrize("units", [1e-4, 1e4])
def test_distances_do_not_depend_on_the_features_units(method, units):
    base = method(ridge=1e-2).fit_outputs(*outputs(TRAIN), labels=labels()).score_outputs(*outputs(TEST))
    scaled = (
        method(ridge=1e-2).fit_outputs(*outputs(TRAIN * units), labels=labels()).score_outputs(*outputs(TEST * units))
    )
    torch.testing.assert_close(scaled, base, rtol=1e-3, atol=1e-3)


def test_distances_survive_features_far_from_zero():
    base = Mahalanobis().fit_outputs(*outputs(TRAIN), labels=labels()).score_outputs(*outputs(TEST))
    moved = Mahalanobis().fit_outputs(*outputs(TRAIN + 1000), labels=labels()).score_outputs(*outputs(TEST + 1000))
    torch.testing.assert_close(moved, base, rtol=2e-2, atol=1e-2)


def test_dead_feature_needs_the_ridge():
    dead = TRAIN.copy()
    dead[:, 2] = 0
    with pytest.raises(ValueError, match="singular at ridge=0"):
        Mahalanobis(ridge=0.0).fit_outputs(*outputs(dead), labels=labels())
    assert torch.isfinite(
        Mahalanobis().fit_outputs(*outputs(dead), labels=labels()).score_outputs(*outputs(TEST))
    ).all()


def test_constant_features_are_refused():
    with pytest.raises(ValueError, match="6 features do not vary"):
        Mahalanobis().fit_outputs(*outputs(np.ones((200, WIDTH))), labels=labels())


def test_absent_class_is_warned_of():
    keep = LABELS != 2
    with pytest.warns(UserWarning, match="1 of the classifier's 4 classes have no training image"):
        score = Mahalanobis().fit_outputs(*outputs(TRAIN[keep]), labels=labels()[torch.from_numpy(keep)])
    assert score.centres.shape == (3, WIDTH)


@pytest.mark.parametrize("method", [Mahalanobis, RelativeMahalanobis])
def test_labels_are_checked(method):
    with pytest.raises(ValueError, match="needs class labels"):
        method().fit_outputs(*outputs(TRAIN))
    with pytest.raises(ValueError, match=r"50 of 200 labels are outside 0..3.*\[4\]"):
        method().fit_outputs(*outputs(TRAIN), labels=torch.from_numpy(np.where(LABELS == 1, 4, LABELS)))
    with pytest.raises(ValueError, match=r"labels must be \[200\], one per image, got \(199,\)"):
        method().fit_outputs(*outputs(TRAIN), labels=labels()[1:])
    with pytest.raises(TypeError, match="labels must be integers"):
        method().fit_outputs(*outputs(TRAIN), labels=labels().double())


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("k", [1, 7, 200])
def test_neighbours_are_scikit_learns(normalize, k):
    def points(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True) if normalize else x

    reference = SklearnNeighbors(n_neighbors=k, algorithm="brute").fit(points(TRAIN))
    expected = reference.kneighbors(points(TEST))[0][:, -1]
    got = Knn(k=k, normalize=normalize).fit_outputs(*outputs(TRAIN)).score_outputs(*outputs(TEST))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_short_distances_are_not_blurred_by_the_matrix_product():
    bank = np.ones((60, 8)) / np.sqrt(8)
    bank[:, 0] += np.arange(60) * 1e-6
    query = bank[:1].copy()
    got = Knn(k=30, normalize=False).fit_outputs(*outputs_of(bank)).score_outputs(*outputs_of(query))
    expected = np.sort(np.linalg.norm(np.float32(bank) - np.float32(query), axis=1))[29]
    assert got.item() == pytest.approx(expected, rel=1e-6)  # a plain product gives 0 or 3e-4


def outputs_of(features):
    z = torch.from_numpy(features).float()
    return torch.zeros(len(z), 2), z


def test_an_image_alone_has_the_distance_it_has_in_a_batch():
    score = Knn(k=5).fit_outputs(*outputs(TRAIN))
    whole = score.score_outputs(*outputs(TEST))
    parts = [score.score_outputs(*outputs(TEST[i : i + 1])) for i in range(len(TEST))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=0)


def test_share_of_the_bank_follows_the_seed():
    banks = [Knn(k=5, share=0.25, seed=s).fit_outputs(*outputs(TRAIN)).bank for s in (0, 0, 1)]
    assert len(banks[0]) == 50
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])


def test_too_many_neighbours_are_refused():
    with pytest.raises(ValueError, match="k=201 neighbours were asked of 200"):
        Knn(k=201).fit_outputs(*outputs(TRAIN))


def reference_residual(dimensions):
    weight, bias = HEAD.weight.numpy(), HEAD.bias.numpy()
    origin = -np.linalg.pinv(weight) @ bias
    # SVD here, an eigendecomposition of the Gram matrix there.
    rows = np.linalg.svd(TRAIN - origin, full_matrices=True)[2][dimensions:]
    return np.linalg.norm((TEST - origin) @ rows.T, axis=1), np.linalg.norm((TRAIN - origin) @ rows.T, axis=1)


@pytest.mark.parametrize("dimensions", [1, 3, 5])
def test_residual_is_numpys(dimensions):
    got = Residual(dimensions=dimensions).fit_outputs(*outputs(TRAIN), head=HEAD).score_outputs(*outputs(TEST))
    np.testing.assert_allclose(got, reference_residual(dimensions)[0], rtol=1e-4, atol=1e-5)


def test_vim_by_its_definition():
    residual, of_train = reference_residual(3)
    logits, train_logits = HEAD(torch.from_numpy(TEST)), HEAD(torch.from_numpy(TRAIN))
    alpha = train_logits.amax(1).mean().item() / of_train.mean()
    score = Vim(dimensions=3).fit_outputs(*outputs(TRAIN), head=HEAD)
    got = score.score_outputs(*outputs(TEST))
    np.testing.assert_allclose(got, alpha * residual - torch.logsumexp(logits, 1).numpy(), rtol=1e-4, atol=1e-4)
    virtual = torch.cat([torch.from_numpy(alpha * residual)[:, None], logits], 1).softmax(1)[:, 0]
    assert torch.equal(virtual.argsort(), got.argsort())  # the paper's probability, same order


@pytest.mark.parametrize("method", [Residual, Vim])
def test_layer_whose_rows_sum_to_zero_does_not_throw_the_origin_away(method):
    """Such a layer has a singular value of rounding size; its inverse put the origin 1e8 features away."""
    weight = (HEAD.weight - HEAD.weight.mean(0)).float()
    head = LinearHead(weight, HEAD.bias.float())
    z = torch.from_numpy(TRAIN).float()
    score = method(dimensions=3).fit_outputs(head(z), z, head=head)
    assert torch.linalg.vector_norm(score.origin) < 100
    again = method(dimensions=3).fit_outputs(head(z), z * (1 + 1e-6), head=head)
    torch.testing.assert_close(
        again.score_outputs(*outputs(TEST)), score.score_outputs(*outputs(TEST)), rtol=1e-3, atol=1e-3
    )


def test_vim_without_residual_is_refused():
    flat = TRAIN @ np.diag([1, 1, 1, 0, 0, 0])
    z = torch.from_numpy(flat).float()
    head = LinearHead(HEAD.weight, HEAD.bias * 0)
    with pytest.raises(ValueError, match="lie in the principal subspace entirely"):
        Vim(dimensions=4).fit_outputs(head(z), z, head=head)


def test_subspace_defaults_follow_the_paper():
    assert [principal_dimensions(w) for w in (2048, 1024, 768, 512, 64)] == [1000, 512, 512, 256, 32]


def test_subspace_as_wide_as_the_features_is_refused():
    with pytest.raises(ValueError, match="dimensions must be between 1 and 5 for 6 features, got 6"):
        Residual(dimensions=6).fit_outputs(*outputs(TRAIN), head=HEAD)


@pytest.mark.parametrize("make", [Mahalanobis, RelativeMahalanobis, lambda: Knn(k=3), Residual, Vim])
def test_state_dict_holds_all_that_was_learnt(make):
    score = make().fit_outputs(*outputs(TRAIN), labels=labels(), head=HEAD)
    again = make()
    load_state(again, score.state_dict())
    assert torch.equal(again.score_outputs(*outputs(TEST)), score.score_outputs(*outputs(TEST)))


@pytest.mark.parametrize("make", [Mahalanobis, RelativeMahalanobis, lambda: Knn(k=3), Residual, Vim])
def test_an_image_does_not_depend_on_its_batch(make):
    score = make().fit_outputs(*outputs(TRAIN), labels=labels(), head=HEAD)
    torch.testing.assert_close(
        score.score_outputs(*outputs(TEST[3:4])), score.score_outputs(*outputs(TEST))[3:4], rtol=1e-5, atol=1e-5
    )


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"ridge.*greater than or equal to 0"):
        Mahalanobis(ridge=-1)
    with pytest.raises(ValueError, match=r"option 'k'.*greater than or equal to 1"):
        Knn(k=0)
    with pytest.raises(ValueError, match=r"share.*greater than 0"):
        Knn(share=0)
    with pytest.raises(ValueError, match=r"dimensions.*greater than or equal to 1"):
        Residual(dimensions=0)


def test_the_feature_density_is_minus_log_p_of_features_of_unit_length():
    guard = FeatureDensity(couplings=2, hidden=8, epochs=3).fit_outputs(*outputs(TRAIN))
    scores = guard.score_outputs(*outputs(TEST))
    unit = torch.from_numpy(TEST / np.linalg.norm(TEST, axis=1, keepdims=True)).float()
    # by the change of variables itself, point by point, with autograd's Jacobian
    scaled = ((unit - guard.flow.mean) / guard.flow.deviation).double()
    flow = guard.flow.flow.double()
    for row, got in zip(scaled[:5], scores[:5], strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: flow.encode(x[None])[0][0][0], row)
        latent = flow.encode(row[None])[0][0]
        log_p = torch.distributions.Normal(0, 1).log_prob(latent).sum() + torch.linalg.slogdet(jacobian)[1]
        assert got.item() == pytest.approx(-(log_p - guard.flow.deviation.double().log().sum()).item(), rel=1e-4)


def test_the_feature_density_learns_and_finds_what_is_elsewhere():
    guard = FeatureDensity(couplings=4, hidden=32, epochs=30, batch_size=20)
    once = FeatureDensity(couplings=4, hidden=32, batch_size=20).fit_outputs(*outputs(TRAIN))
    guard.fit_outputs(*outputs(TRAIN))
    fresh = np.random.default_rng(5)
    more = CENTRES[LABELS] + fresh.normal(size=(200, WIDTH)) @ np.diag([1, 2, 0.5, 1, 1, 0.1])
    inside, before, outside = (
        each.score_outputs(*outputs(x)) for each, x in ((guard, more), (once, more), (guard, -more))
    )
    assert inside.median() < before.median()
    assert (outside[:, None] > inside).float().mean() > 0.9


def test_the_feature_density_is_of_directions_and_of_a_seed():
    base = FeatureDensity(couplings=2, hidden=8).fit_outputs(*outputs(TRAIN)).score_outputs(*outputs(TEST))
    longer = FeatureDensity(couplings=2, hidden=8).fit_outputs(*outputs(TRAIN * 7)).score_outputs(*outputs(TEST * 7))
    torch.testing.assert_close(longer, base, rtol=1e-2, atol=1e-2)
    raw = FeatureDensity(couplings=2, hidden=8, normalize=False).fit_outputs(*outputs(TRAIN))
    assert not torch.allclose(raw.score_outputs(*outputs(TEST)), base, rtol=0.1)
    other = FeatureDensity(couplings=2, hidden=8, seed=1).fit_outputs(*outputs(TRAIN)).score_outputs(*outputs(TEST))
    assert not torch.equal(other, base)


def test_a_density_of_few_features_or_of_one_is_refused():
    with pytest.raises(ValueError, match="feature_density: 7 training features are too few for a density"):
        FeatureDensity().fit_outputs(*outputs(TRAIN[:7]))
    with pytest.raises(ValueError, match="needs at least 2 features, got 1"):
        FeatureDensity().fit_outputs(torch.zeros(20, 2), torch.zeros(20, 1))
    with pytest.raises(RuntimeError, match="feature_density must be fitted"):
        FeatureDensity().score_outputs(*outputs(TEST))

"""PatchCore: exact neighbours, the greedy choice, the image score by hand."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

import dracones
from dracones.features import StoredFeatures
from dracones.methods.memories.patchcore import nearest_in, spread_out
from dracones.training import Silent
from feature_case import SMALL, anomalies, normals


def vectors(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_neighbours_are_scikit_learns():
    memory, queries = vectors(200, 12) + 30, vectors(2500, 12, seed=1) + 30
    distance, index = nearest_in(queries, memory)
    expected, at = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(memory.numpy()).kneighbors(queries.numpy())
    np.testing.assert_array_equal(index.numpy(), at[:, 0])
    np.testing.assert_allclose(distance.numpy(), expected[:, 0], rtol=1e-5)


def test_a_patch_of_the_memory_is_at_distance_zero():
    memory = vectors(50, 8) + 100
    assert torch.equal(nearest_in(memory, memory)[0], torch.zeros(50))


def test_the_greedy_choice_is_k_centre():
    points = torch.tensor([[0.0, 0.0], [0.1, 0.0], [10.0, 0.0], [10.0, 1.0], [0.0, 20.0]])
    chosen = spread_out(points, 3, projection=128, generator=torch.Generator().manual_seed(0))
    clusters = {frozenset({0, 1}), frozenset({2, 3}), frozenset({4})}
    assert {next(c for c in clusters if int(i) in c) for i in chosen} == clusters
    every = spread_out(points, 5, projection=128, generator=torch.Generator().manual_seed(0))
    assert sorted(every.tolist()) == [0, 1, 2, 3, 4]


def test_choice_follows_its_definition_in_numpy():
    points = vectors(60, 5)
    chosen = spread_out(points, 10, projection=128, generator=torch.Generator().manual_seed(2)).tolist()
    full = np.linalg.norm(points.numpy()[:, None] - points.numpy()[None], axis=2)
    for place in range(1, 10):
        assert chosen[place] == int(full[:, chosen[:place]].min(1).argmax())


def test_projection_keeps_the_choice_spread_out():
    points = vectors(300, 200)
    exact = spread_out(points, 30, projection=500, generator=torch.Generator().manual_seed(0))
    rough = spread_out(points, 30, projection=64, generator=torch.Generator().manual_seed(0))

    def radius(chosen):
        return float(torch.cdist(points, points[chosen]).amin(1).max())

    assert radius(rough) < 1.1 * radius(exact)


def test_image_score_by_hand():
    method = dracones.create("patchcore", **{**SMALL, "levels": (1,)}, neighbours=2).method
    method.build((3, 64, 64))
    method.memory = torch.zeros(3, 32)
    method.memory[1, 0], method.memory[2, 0] = 1.0, 5.0
    patch = torch.zeros(1, 32)
    patch[0, 0] = 7.0  # nearest is 5, at 2; of that one's two neighbours 5 and 1 the patch is 2 and 6 away
    weight = method._loneliness(patch, torch.tensor([2]), torch.tensor([2.0]))
    assert float(weight) == pytest.approx(1 - np.exp(2) / (np.exp(2) + np.exp(6)))


def test_fit_score_save(tmp_path):
    detector = dracones.create("patchcore", **SMALL, memory_share=0.05).fit(normals(40))
    assert len(detector.method.memory) == round(0.05 * 32 * 16 * 16)
    images, mask = anomalies()
    loud, calm = detector.predict(images), detector.predict(normals(8, seed=9))
    assert loud.scores.min() > calm.scores.max()
    heat = np.stack(loud.maps)
    assert heat[:, mask].mean() > 2 * heat[:, ~mask].mean()
    again = dracones.load(detector.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.predict(images).scores, loud.scores)


def test_wide_features_are_pooled_to_1024():
    method = dracones.create("patchcore", **{**SMALL, "backbone": "resnet50", "levels": (1, 2, 3)}).method
    method.build((3, 64, 64))
    assert method.memory.shape == (0, 1024)
    assert method.patches(method.extractor(normals(1))).shape == (1, 16, 16, 1024)


def test_memory_and_candidates_are_bounded_and_progress_is_told():
    class Counting(Silent):
        def __init__(self):
            self.seen = {}

        def start(self, total, what):
            self.what = what
            self.seen[what] = [total, 0]

        def advance(self, n=1, **numbers):
            self.seen[self.what][1] += n

    progress = Counting()
    detector = dracones.create("patchcore", **SMALL, memory_share=0.5, memory_limit=128, candidates=256)
    detector.fit(normals(40), progress=progress)
    assert len(detector.method.memory) == 128
    assert progress.seen["choosing the patches to keep"] == [128, 128]


def test_candidates_come_from_all_images_and_positions():
    method = dracones.create("patchcore", **SMALL).method
    method.build((3, 64, 64))
    features = StoredFeatures([np.arange(3 * 2 * 2 * 4, dtype=np.float32).reshape(3, 2, 2, 4)] * 1)
    method.patches = lambda maps: maps[0].permute(0, 2, 3, 1)
    everything = method._at(torch.arange(12), features)
    np.testing.assert_array_equal(everything.numpy(), features.levels[0].reshape(12, 4))
    np.testing.assert_array_equal(method._at(torch.tensor([0, 7, 11]), features), everything[[0, 7, 11]])


def test_choosing_takes_time_in_proportion_to_the_images():
    """Twice the images, memory kept at its limit: the same number of choices among the same number of candidates."""
    sizes = []
    for count in (20, 40):
        detector = dracones.create(
            "patchcore",
            **SMALL,
            memory_share=1.0,
            memory_limit=50,
            candidates=150,
            validation_share=0,
            calibration_share=0,
        )
        original = detector.method._at
        detector.method._at = lambda places, features, original=original: (
            sizes.append(len(places)) or original(places, features)
        )
        detector.fit(normals(count))
    assert sizes == [150, 150]


def test_the_choice_is_the_plain_greedy_one():
    points = vectors(500, 6)
    chosen = spread_out(points, 60, 6, torch.Generator().manual_seed(3))
    expected = [int(chosen[0])]
    distance = torch.linalg.vector_norm(points - points[expected[0]], dim=1)
    while len(expected) < 60:
        distance[expected] = -1.0
        expected.append(int(distance.argmax()))
        distance = torch.minimum(distance, torch.linalg.vector_norm(points - points[expected[-1]], dim=1))
    assert chosen.tolist() == expected

"""PatchCore: exact neighbours, the greedy choice, the image score by hand."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

import dracones
from dracones.features import StoredFeatures
from dracones.methods.memories import patchcore
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


def learnt_from(points, per_image=8, **options):
    """A method whose memory has learnt from vectors `[N, D]`, `per_image` of them an image."""
    method = dracones.create("patchcore", **SMALL, projection=64, neighbours=1, **options).method
    method.build((3, 64, 64))
    method.memory = torch.empty(0, points.shape[1])
    method.patches = lambda maps: maps[0].permute(0, 2, 3, 1)
    features = StoredFeatures([points.view(-1, 1, per_image, points.shape[1]).numpy()])
    return method, features


def radius(points, memory):
    return float(nearest_in(points, memory)[0].max())


def test_the_choice_in_parts_leaves_none_far_away(monkeypatch):
    monkeypatch.setattr(patchcore, "_PART", 1024)
    generator = torch.Generator().manual_seed(0)
    # Hundred places of very unequal number, as backgrounds and parts are; a choice at random misses the rare ones.
    places = 20 * vectors(100, 6)
    often = torch.multinomial(1 / torch.arange(1, 101).float() ** 2, 4000, replacement=True, generator=generator)
    points = places[torch.cat([often, torch.arange(100).repeat(8)])][torch.randperm(4800, generator=generator)]
    points += 0.1 * vectors(4800, 6, seed=3)
    method, features = learnt_from(points, memory_share=1.0, memory_limit=150)
    method.learn(features, generator)
    exact = points[spread_out(points, 150, 64, generator)]
    assert len(method.memory) == 150
    assert radius(points, method.memory) < 1.5 * radius(points, exact)
    at_random = points[torch.randperm(4800, generator=generator)[:600]]
    assert radius(points, at_random[spread_out(at_random, 150, 64, generator)]) > 2 * radius(points, exact)


def test_choosing_takes_time_and_memory_that_do_not_grow_with_the_images_once_the_limit_is_reached(monkeypatch):
    monkeypatch.setattr(patchcore, "_PART", 64)
    work = []
    monkeypatch.setattr(
        patchcore,
        "spread_out",
        lambda points, count, *rest: work.append((len(points), count)) or spread_out(points, count, *rest),
    )
    found = []
    for count in (2048, 8192):
        work.clear()
        method, features = learnt_from(vectors(count, 4), memory_share=1.0, memory_limit=64)
        method.learn(features, torch.Generator().manual_seed(0))
        *parts, last = work
        assert sum(size for size, _ in parts) == count  # every patch is looked at
        assert last == (4 * 64, 64)
        found.append(sum(size * chosen for size, chosen in work))
    assert found[0] == found[1]


def test_progress_is_told_of_every_choice(monkeypatch):
    class Counting(Silent):
        def start(self, total, what):
            self.total, self.what, self.seen = total, what, 0

        def advance(self, n=1, **numbers):
            self.seen += n

    for part, expected in ((64, 16 * 64 + 256), (1024, 256)):  # in sixteen parts, and at once
        monkeypatch.setattr(patchcore, "_PART", part)
        progress = Counting()
        method, features = learnt_from(vectors(1024, 4), memory_share=0.25)
        method.learn(features, torch.Generator().manual_seed(0), progress)
        assert (progress.total, progress.seen) == (expected, expected)
        assert len(method.memory) == 256


def test_a_memory_that_learns_on_grows_by_the_share_and_knows_the_new():
    method, features = learnt_from(vectors(800, 6), memory_share=0.1)
    _, more = learnt_from(vectors(400, 6, seed=1) + 30)
    method.learn(features, torch.Generator().manual_seed(0))
    assert len(method.memory) == 80
    method.learn(more, torch.Generator().manual_seed(0))
    assert len(method.memory) == 120
    assert int((method.memory[:, 0] > 15).sum()) > 20
    assert radius(vectors(400, 6, seed=1) + 30, method.memory) < 6


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


def test_more_patches_are_put_forward_where_that_is_asked(monkeypatch):
    monkeypatch.setattr(patchcore, "_PART", 64)  # several parts, so that candidates are put forward at all
    kept = [
        dracones.create("patchcore", **SMALL, memory_share=0.02, put_forward=count, seed=0).fit(normals()).method.memory
        for count in (1, 1, 4)
    ]
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])

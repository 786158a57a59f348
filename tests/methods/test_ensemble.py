"""Witnesses over one pass: the same numbers as alone, one scale, weights from made defects, one file."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch

import dracones
from dracones.features import FeatureExtractor
from dracones.images import open_images
from dracones.methods import ensemble
from dracones.methods.feature_flows.embedding_flow import EmbeddingFlow
from dracones.methods.learning import FitContext, Parts
from dracones.methods.memories.padim import PaDiM
from dracones.methods.memories.patchcore import PatchCore
from dracones.methods.shared_pass import SharedReader
from dracones.methods.witness_weights import Standard, witness_weights
from feature_case import SMALL, anomalies, normals

OPTIONS = {
    **{key: value for key, value in SMALL.items() if key != "levels"},
    "levels": (1, 2),
    "scales": 2,
    "made_defects": 20,
    "memory_share": 0.05,
}


@pytest.fixture(scope="module")
def fitted():
    return dracones.create("ensemble", **OPTIONS).fit(normals(60))


def test_finds_the_square_and_shows_where(fitted):
    images, mask = anomalies()
    calm, loud = fitted.predict(normals(12, seed=5)), fitted.predict(images)
    assert loud.scores.min() > calm.scores.max()
    heat = np.stack(loud.maps)
    assert heat[:, mask.numpy()].mean() > heat[:, ~mask.numpy()].mean()


def test_score_is_merged_on_the_scale_of_normal_images_and_calm_witnesses_excuse_nothing(fitted):
    method, (images, _) = fitted.method, anomalies(3)
    with torch.no_grad():
        maps = method.extractor(images)
        got = method.score_maps(maps, (64, 64))
        alone = [
            witness.score_maps(tuple(maps[i] for i in method._levels_of(name)), (64, 64))
            for name, witness in method.witnesses.items()
        ]
    standard = [(answer.image - method.centre[i]) / method.spread[i] for i, answer in enumerate(alone)]
    expected = sum(method.weights[i] * (1 + (2 * z.double()).exp()).log() / 2 for i, z in enumerate(standard))
    torch.testing.assert_close(got.image.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.evidence.sum(dim=1), got.image)
    heat = sum(
        method.weights[i] * (answer.map - method.map_centre[i]) / method.map_spread[i]
        for i, answer in enumerate(alone)
        if answer.map is not None
    )
    torch.testing.assert_close(got.map, heat)


def test_weights_are_told_on_the_scale_of_images_that_no_witness_has_seen():
    seen = {}
    detector = dracones.create("ensemble", **OPTIONS)
    method = detector.method
    original = method._standardise

    def watched(context):
        normal = original(context)
        seen["held"], seen["train"] = set(context.held_out.names), set(context.train.names)
        with torch.no_grad():
            images = context.held_out.to_tensor()
            scores = torch.stack([a.image for a in method._answers(method.extractor(images), (64, 64))], dim=1)
        torch.testing.assert_close(method.centre, scores.mean(dim=0), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(method.spread, scores.std(dim=0), rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(normal, (scores - method.centre) / method.spread, rtol=1e-2, atol=1e-2)
        return normal

    method._standardise = watched
    detector.fit(normals(60))
    assert seen["held"]
    assert not seen["held"] & seen["train"]


def test_the_scale_is_that_of_the_witnesses_as_they_end():
    """Good images that nobody has seen lie about its middle, though the witnesses learnt on after their weighing."""
    detector = dracones.create("ensemble", **OPTIONS)
    before = {}
    learn = detector.method._learn_held_out

    def watched(context):
        before.update({key: value.clone() for key, value in detector.method.named_buffers(recurse=False)})
        learn(context)

    detector.method._learn_held_out = watched
    detector.fit(normals(60))
    method = detector.method
    with torch.no_grad():
        answers = method._answers(method.extractor(normals(200, seed=9)), (64, 64))
    scores = torch.stack([answer.image for answer in answers], dim=1)
    after = Standard(method.centre, method.spread)(scores)[:, :2].mean(dim=0).abs()
    stale = Standard(before["centre"], before["spread"])(scores)[:, :2].mean(dim=0).abs()
    assert (after < stale).all(), (after, stale)
    assert (method.spread[:2] != before["spread"][:2]).all()
    assert (method.map_centre[1], method.map_spread[1]) != (before["map_centre"][1], before["map_spread"][1])
    assert method.centre[2] == before["centre"][2], "a memory cannot tell"


@pytest.mark.parametrize(("at_most", "expected"), [(150, 24), (20, 20)])
def test_made_defects_are_two_an_image_that_is_held_out_as_far_as_are_allowed(monkeypatch, at_most, expected):
    made = []
    original = ensemble._made
    monkeypatch.setattr(ensemble, "_made", lambda *a: made.append(1) or original(*a))
    dracones.create("ensemble", **{**OPTIONS, "made_defects": at_most}).fit(normals(60))
    assert len(made) == expected, "twelve images are held out"


@pytest.mark.parametrize("name", ["whole", "place"])
def test_a_witness_judges_what_it_has_learnt_as_one_that_has_not(name):
    """As if unseen: near what a fit without the image says, and further than what the fit with it says."""
    images = open_images(normals(40))
    options = {**OPTIONS, "weighting": "equal", "calibration_share": 0, "cache": False, "witnesses": (name,)}
    method = dracones.create("ensemble", **options).fit(images).method
    (witness,) = method.witnesses.values()
    pooling = ("mean", "max", "std") if name == "whole" else None

    def maps_of(some):
        with torch.no_grad():
            maps = method.extractor(some)
        return tuple(maps[i] for i in method._levels_of(name))

    def learnt_from(some):
        fresh = deepcopy(witness)
        fresh.read_from(SharedReader(method.features_of, method._levels_of(name), pooling))
        context = FitContext(some, some.subset([]), torch.Generator().manual_seed(3), None)
        if name == "whole":
            list(fresh.trainees(Parts(some, some.subset([]), some.subset([]))))
        else:
            fresh.fit_statistics(context)
        return fresh

    chosen = [0, 7, 19]
    everything = learnt_from(images)
    batch = maps_of(images.subset(chosen).to_tensor())
    with torch.no_grad():
        seen = everything.score_maps(batch, (64, 64)).image
        as_unseen = everything.score_as_unseen(batch, (64, 64)).image
        unseen = torch.cat(
            [
                learnt_from(images.subset([i for i in range(40) if i != left]))
                .score_maps(tuple(level[place : place + 1] for level in batch), (64, 64))
                .image
                for place, left in enumerate(chosen)
            ]
        )
    assert (as_unseen > seen).all()
    off, shift = (as_unseen - unseen).abs(), (unseen - seen).abs()
    assert (off < 0.25 * shift).all(), (seen, as_unseen, unseen)


def test_what_is_held_out_is_learnt_last_and_none_is_wasted(monkeypatch):
    """Each witness ends as on all images but those that calibrate; the weights were told before."""
    learnt, order = {}, []
    detector = dracones.create("ensemble", **OPTIONS)
    weigh = detector.method._weigh
    detector.method._weigh = lambda context: (order.append("weighed"), weigh(context))
    for kind in (EmbeddingFlow, PaDiM, PatchCore):
        learn_on = kind.learn_on

        def watched(self, context, learn_on=learn_on):
            order.append(self.info.name)
            learnt[self.info.name] = (set(context.train.names), len(context.held_out))
            return learn_on(self, context)

        monkeypatch.setattr(kind, "learn_on", watched)
    detector.fit(normals(60))
    assert order == ["weighed", "embedding_flow", "padim", "patchcore"]
    (late,) = {frozenset(names) for names, _ in learnt.values()}
    assert len(late) == 12
    assert {held for _, held in learnt.values()} == {0}
    whole, place, patch = detector.method.witnesses.values()
    trained = detector.provenance["images"]["train"]
    assert trained + 12 + detector.provenance["images"]["calibration"] == 60
    assert int(whole.count) == int(place.count) == trained + 12
    assert len(patch.memory) == round(0.05 * 256 * trained) + round(0.05 * 256 * 12)


def test_places_and_patches_lie_on_the_two_coarser_levels_and_the_flow_on_all():
    options = {**OPTIONS, "levels": (1, 2, 3), "witnesses": ("whole", "place", "patch", "flow")}
    method = dracones.create("ensemble", **options).method
    method.build((3, 64, 64))
    sizes = method.extractor.map_sizes(64, 64)
    assert method.witnesses["place"].map_size == sizes[1]
    assert method.witnesses["patch"].memory.shape[1] == sum(method.extractor.channels[1:3])
    assert len(method.witnesses["flow"].flows) == 3


def test_one_pass_of_the_backbone_serves_all_witnesses(monkeypatch):
    passes = []
    forward = FeatureExtractor.forward
    monkeypatch.setattr(
        FeatureExtractor, "forward", lambda self, images: passes.append(len(images)) or forward(self, images)
    )
    detector = dracones.create("ensemble", **{**OPTIONS, "weighting": "equal", "calibration_share": 0})
    detector.fit(normals(60))
    # 60 images at two scales, and the few blank ones that tell shapes.
    assert sum(passes) <= 2 * 60 + 8


def test_saved_and_loaded_scores_and_witnesses_are_the_same(fitted, tmp_path):
    images, _ = anomalies(4)
    again = dracones.load(fitted.save(tmp_path / "m.safetensors"))
    first, second = fitted.predict(images), again.predict(images)
    np.testing.assert_array_equal(second.scores, first.scores)
    assert second.witnesses == first.witnesses is not None
    assert again.config == fitted.config


def test_a_verdict_names_who_adds_most(fitted):
    images = torch.cat([anomalies(3)[0], normals(5, seed=8)])
    evidence = fitted.score(images).evidence
    said = ("the whole image", "a place", "a patch")
    verdicts = list(fitted.iterate(images))
    assert [verdict.witness for verdict in verdicts] == [said[int(row.argmax())] for row in evidence]
    assert [verdict.witness for verdict in fitted.predict(images)] == [verdict.witness for verdict in verdicts]


def test_in_tiles_the_witness_is_that_of_the_highest_tile(fitted):
    tiles = torch.cat([normals(3, seed=8), anomalies(1)[0]])
    image = torch.cat(list(tiles), dim=2)[None]
    alone = fitted.predict(tiles)
    whole = fitted.tiled((64, 64)).predict(image)
    assert whole.scores[0] == pytest.approx(alone.scores.max(), rel=1e-4)
    assert whole.witnesses == (alone.witnesses[int(alone.scores.argmax())],)


def test_all_four_witnesses_and_any_one():
    images, _ = anomalies(2)
    four = dracones.create("ensemble", **OPTIONS, witnesses=("whole", "place", "patch", "flow"), flow_epochs=1)
    assert np.isfinite(four.fit(normals(40)).predict(images).scores).all()
    one = dracones.create("ensemble", **OPTIONS, witnesses=("whole",))
    assert not one.gives_maps
    assert one.fit(normals(40)).predict(images).maps is None


def test_a_witness_counts_by_how_well_it_tells_made_defects():
    generator = torch.Generator().manual_seed(0)
    shift = torch.tensor([2.0, 1.0, -0.1, -1.0])
    normal, other = torch.randn(2, 4000, 4, generator=generator)
    weights = witness_weights(normal, other + shift)
    torch.testing.assert_close(
        weights[:2], torch.tensor([2 / 3 + 2 / 3 + 1 / 2, 1 / 3 + 1 / 3 + 1 / 2]) / 3, atol=0.02, rtol=0
    )
    assert weights[2] == weights[3] == 0, "neither is better than chance"
    # Of ranks: defects that are found anyway may lie anywhere beyond.
    far = torch.where(other + shift > 3, 100.0, other + shift)
    torch.testing.assert_close(witness_weights(normal.clamp(max=3), far), weights, atol=0.01, rtol=0)
    torch.testing.assert_close(witness_weights(normal, normal - 1), torch.full((4,), 0.25))


def test_what_witnesses_say_alike_of_good_images_counts_once():
    generator = torch.Generator().manual_seed(1)
    correlation = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])
    normal, other = torch.randn(2, 20000, 3, generator=generator) @ torch.linalg.cholesky(correlation).T
    shift = torch.tensor([2.0, 2.0, 2.0])
    fisher = torch.linalg.solve(correlation, shift)
    weights = witness_weights(normal, other + shift)
    torch.testing.assert_close(weights, (fisher / fisher.sum() + 2 / 3) / 3, atol=0.02, rtol=0)
    # Fisher's weight of one that says less than its twin would be negative: it is none.
    weights = witness_weights(normal, other + torch.tensor([2.0, 1.0, 2.0]))
    torch.testing.assert_close(
        weights, torch.tensor([0.5 + 0.4 + 1 / 3, 0.2 + 1 / 3, 0.5 + 0.4 + 1 / 3]) / 3, atol=0.02, rtol=0
    )


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_images_draw_the_correlation_to_none(count):
    normal = torch.arange(float(count))[:, None] * torch.tensor([1.0, 1.0, 0.0])
    weights = witness_weights(normal, torch.full((5, 3), 9.0))
    assert torch.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(float(weights[1]), abs=1e-6)
    assert weights[0] > 0.1, "two alike tell something"


def test_all_made_defects_told_is_a_finite_weight():
    weights = witness_weights(torch.linspace(-2, 2, 50)[:, None].expand(50, 2), torch.tensor([[9.0, 1.5]] * 20))
    assert torch.isfinite(weights).all()
    assert weights[0] > weights[1] > 0


def test_weights_follow_from_held_out_images_and_their_made_defects(fitted):
    """The method whose answers to made defects are no better than chance is not heard."""
    method = deepcopy(fitted).method
    seen = {}
    method._standardise = lambda context: seen.setdefault("normal", torch.randn(40, 1).expand(-1, 3))
    method._answers_to_defects = lambda context: torch.cat([seen["normal"]] * 2) + torch.tensor([2.0, -1.0, 2.0])
    method._learn_held_out = lambda context: None
    for witness in method.witnesses.values():
        witness.fit_statistics = lambda context: None
    method.fit_statistics(FitContext([1, 2], [1, 2], torch.Generator(), None))
    torch.testing.assert_close(method.weights, torch.tensor([0.5, 0.0, 0.5]), atol=0.06, rtol=0)


def test_a_witness_that_stands_still_among_normal_images_has_a_finite_scale():
    standard = Standard.of(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert torch.isfinite(standard(torch.tensor([[2.0, 6.0]]))).all()


def test_without_held_out_images_there_is_no_scale():
    with pytest.raises(ValueError, match="greater than 0"):
        dracones.create("ensemble", validation_share=0)


def test_a_copy_and_a_pickled_one_are_whole_and_stand_alone(fitted):
    images, _ = anomalies(3)
    expected = fitted.predict(images).scores
    copy = deepcopy(fitted)
    for other in (copy, pickle.loads(pickle.dumps(fitted))):  # noqa: S301 (its own bytes)
        np.testing.assert_array_equal(other.predict(images).scores, expected)
    whole = copy.method.witnesses["whole"]
    assert whole._reader.shared.__self__ is copy.method


def test_scale_is_of_scores_in_the_precision_of_scores():
    detector = dracones.create(
        "ensemble", **OPTIONS, precision="bf16", witnesses=("whole", "place", "flow"), flow_epochs=1
    )
    method, original = detector.method, detector.method._standardise
    seen = []

    def watched(context):
        normal = original(context)
        (maps,) = method._pass(context.held_out, None).chunks(16)
        with torch.no_grad(), method.scoring_precision():
            answers = method._answers(maps, (64, 64))
        seen.extend((method.centre.clone(), torch.stack([answer.image.float().mean() for answer in answers])))
        return normal

    method._standardise = watched
    detector.fit(normals(60))
    torch.testing.assert_close(*seen, rtol=1e-6, atol=1e-6)

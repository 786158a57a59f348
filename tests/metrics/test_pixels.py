"""Pixel metrics: AUPRO against a computation threshold by threshold, the rest against the image-level code."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dracones.metrics import PixelRanking, Ranking, aupro, evaluate_maps, pixel_auroc, pixel_counts
from dracones.metrics.regions import label_regions


def random_maps(rng, kind=np.float32, images=None):
    """Maps of several sizes with many ties, random masks, both classes present."""
    levels = rng.integers(2, 60)
    maps, masks = [], []
    for _ in range(images or rng.integers(1, 5)):
        shape = rng.integers(2, 9, 2)
        scores = rng.integers(0, levels, shape) / (3 if kind is np.float64 else 1)
        maps.append(scores.astype(kind))
        masks.append(rng.random(shape) < rng.choice([0, 0.3, 0.7]))
    masks[0][0, 0], masks[-1][-1, -1] = True, False
    return maps, masks


def flat(maps, masks):
    return np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])


def aupro_by_definition(maps, masks, limit, structure=None):
    """Every distinct score in turn as threshold: mean covered share of the regions over false positive rate."""
    scores, labels = flat(maps, masks)
    regions = []
    for scores_of_map, mask in zip(maps, masks, strict=True):
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)) if structure is None else structure)
        regions += [scores_of_map[labelled == index + 1] for index in range(count)]
    across, up = [0.0], [0.0]
    for threshold in np.unique(scores)[::-1]:
        across.append((scores[~labels] >= threshold).mean())
        up.append(np.mean([(region >= threshold).mean() for region in regions]))
    area = 0.0
    for x0, x1, y0, y1 in zip(across, across[1:], up, up[1:], strict=False):
        if x0 >= limit:
            break
        end = min(x1, limit)
        y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0) if x1 > x0 else y1
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit


@given(st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]), st.sampled_from([0.01, 0.05, 0.3, 0.77, 1]))
@settings(max_examples=200, deadline=None)
def test_aupro_is_its_definition(seed, kind, limit):
    maps, masks = random_maps(np.random.default_rng(seed), kind)
    assert aupro(maps, masks, limit) == pytest.approx(aupro_by_definition(maps, masks, limit), abs=1e-9)


@given(st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]), st.sampled_from([1, 5, 1 << 16]))
@settings(max_examples=150, deadline=None)
def test_all_else_equals_the_image_level_metrics(seed, kind, block):
    maps, masks = random_maps(np.random.default_rng(seed), kind)
    pixels, plain = PixelRanking(), Ranking(*flat(maps, masks))
    pixels.add(maps, masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_counts, "BLOCK", block)
        assert pixels.auroc() == pytest.approx(plain.auroc(), abs=1e-12)
        assert pixels.f1_max() == plain.f1_max()
        assert pixels.detection_error() == plain.detection_error()
        for positive in ("in", "out"):
            for area in ("average_precision", "trapezoid"):
                assert pixels.aupr(positive, area) == pytest.approx(plain.aupr(positive, area), abs=1e-12)
            for rate in (0.07, 0.5, 0.95, 1):
                assert pixels.operating_point(rate, positive) == plain.operating_point(rate, positive)


def test_connectivity_decides_what_a_region_is():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 30, (2, 8, 8)).astype(np.float32)
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[:, [1, 2, 5], [1, 2, 4]] = True
    by_corner, by_side = aupro(maps, masks), aupro(maps, masks, connectivity=4)
    cross = ndimage.generate_binary_structure(2, 1)
    assert by_side == pytest.approx(aupro_by_definition(maps, masks, 0.3, cross), abs=1e-12)
    assert by_corner == pytest.approx(aupro_by_definition(maps, masks, 0.3), abs=1e-12)
    assert by_side != by_corner
    with pytest.raises(ValueError, match="connectivity: expected 4 or 8, got 6"):
        PixelRanking(connectivity=6)


@given(st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_regions_are_those_of_the_whole_mask(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((11, 7)) < rng.choice([0.02, 0.3, 0.6])
    regions, count = label_regions(mask)
    expected, expected_count = ndimage.label(mask, structure=np.ones((3, 3)))
    assert (count, regions.tolist()) == (expected_count, expected.tolist())


def test_large_and_small_regions_count_the_same():
    mask = np.zeros((10, 10), dtype=bool)
    mask[:5, :5] = mask[9, 9] = True
    scores = np.zeros((10, 10))
    scores[:5, :5] = 1
    found_large = aupro([scores], [mask], 1.0)
    scores = np.zeros((10, 10))
    scores[9, 9] = 1
    assert [found_large, aupro([scores], [mask], 1.0)] == pytest.approx([0.75, 0.75], abs=1e-12)


def test_map_by_map_is_all_at_once():
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((6, 9, 9)).astype(np.float32)
    masks = np.zeros((6, 9, 9), dtype=np.uint8)
    masks[::2, 2:5, 3:6] = 255
    whole, parts = PixelRanking(), PixelRanking()
    whole.add(maps, masks)
    parts.add(maps[0], masks[0])
    first = parts.auroc()
    parts.add(maps[1:3], masks[1:3])
    parts.add((m for m in maps[3:]), (m for m in masks[3:]))
    assert parts.auroc() == whole.auroc() != first
    assert parts.aupro() == whole.aupro()
    assert parts.intervals(replicates=50) == whole.intervals(replicates=50)
    assert repr(parts) == repr(whole) == "PixelRanking(6 images, 459 normal and 27 anomalous pixels, 3 regions)"


def test_tensors_lists_and_masks_of_any_kind():
    maps = torch.tensor([[[0.1, 0.9], [0.2, 0.3]], [[0.6, 0.4], [0.2, 0.5]]])
    masks = torch.tensor([[[0, 1], [0, 0]], [[0, 0], [0, 1]]])
    expected = pixel_auroc(maps.numpy(), masks.numpy())
    assert expected == pytest.approx(11 / 12)
    for kind in (torch.float64, torch.float16):
        assert pixel_auroc(maps.to(kind).requires_grad_(), masks.bool()) == expected
    assert pixel_auroc(maps.bfloat16(), (255 * masks).to(torch.uint8)) == expected
    assert pixel_auroc(list(maps), list(masks.float())) == expected
    assert pixel_auroc(maps.numpy(), 255 * masks.numpy().astype(np.int32)) == expected
    assert pixel_auroc(maps.tolist(), masks.tolist()) == expected


def test_a_later_map_of_doubles_keeps_all_exact():
    pixels = PixelRanking()
    pixels.add(np.float32([[1, 2]]), [[0, 0]])
    pixels.add(np.float64([[1 + 1e-12, 1 + 2e-12]]), [[0, 1]])
    assert pixels.auroc() == pytest.approx(2 / 3)
    assert pixels.operating_point(1.0, "out").threshold == 1 + 2e-12


def test_memory_grows_with_the_pixels_not_the_calls():
    pixels = PixelRanking()
    for _ in range(64):
        pixels.add(np.zeros((64, 64), dtype=np.float32), np.zeros((64, 64), dtype=bool))
    kept = pixels._normal._buffer
    assert kept.nbytes <= 4 * 64 * 64 * 64 * 9 / 8
    assert len(pixels._anomalous._buffer) == 0


@pytest.mark.parametrize("limit", [0.3, 1.0])
def test_pro_curve_has_the_area(limit):
    maps, masks = random_maps(np.random.default_rng(3), images=4)
    pixels = PixelRanking()
    pixels.add(maps, masks)
    curve = pixels.pro_curve()
    grid = np.union1d(curve.false_positive_rate, [limit])
    grid = grid[grid <= limit]
    assert np.all(np.diff(curve.false_positive_rate) >= 0)
    assert (curve.false_positive_rate[0], curve.per_region_overlap[0]) == (0, 0)
    assert (curve.false_positive_rate[-1], curve.per_region_overlap[-1]) == (1, 1)
    scores, labels = flat(maps, masks)
    for alarms, threshold in zip(curve.false_positive_rate, curve.threshold, strict=True):
        assert (scores[~labels] >= threshold).mean() == pytest.approx(alarms)
    inside = curve.false_positive_rate < limit
    end = np.interp(limit, curve.false_positive_rate, curve.per_region_overlap) if limit < 1 else 1.0
    area = np.trapezoid(
        np.append(curve.per_region_overlap[inside], end), np.append(curve.false_positive_rate[inside], limit)
    )
    assert area / limit == pytest.approx(pixels.aupro(limit), abs=1e-9)


def test_evaluate_maps_names_values_and_intervals():
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((40, 12, 12)).astype(np.float32)
    masks = np.zeros((40, 12, 12), dtype=bool)
    masks[:20, 3:7, 3:7] = True
    maps += masks * rng.uniform(0.5, 3, (40, 1, 1)).astype(np.float32)
    result = evaluate_maps(maps, masks, seed=1)
    names = ["auroc", "aupr_in", "aupr_out", "fpr_at_tpr95", "detection_error", "f1_max", "aupro"]
    assert list(result) == names
    for name in names:
        assert 0 <= result[name]["low"] < result[name]["value"] < result[name]["high"] <= 1, name
    assert result["aupro"]["value"] == aupro(maps, masks)
    assert result["f1_max"]["threshold"] == Ranking(maps, masks).f1_max().threshold
    assert evaluate_maps(maps, masks, seed=1) == result
    assert evaluate_maps(maps, masks, seed=2) != result
    wider = evaluate_maps(maps, masks, confidence=0.999, seed=1)
    assert all(wider[n]["low"] < result[n]["low"] and wider[n]["high"] > result[n]["high"] for n in names)


def test_intervals_agree_with_a_bootstrap_that_ranks_every_resample_anew():
    rng = np.random.default_rng(5)
    maps = rng.standard_normal((30, 10, 10)).astype(np.float32)
    masks = np.zeros((30, 10, 10), dtype=bool)
    masks[:15, 2:6, 2:6] = True
    masks[:7, 8:, 8:] = True
    maps += masks * rng.uniform(0.2, 2.5, (30, 1, 1)).astype(np.float32)
    pixels = PixelRanking()
    pixels.add(maps, masks)
    drawn = []
    for _ in range(300):
        chosen = np.concatenate([rng.integers(0, 15, 15), rng.integers(15, 30, 15)])
        again = PixelRanking()
        again.add(maps[chosen], masks[chosen])
        drawn.append([again.auroc(), again.aupro(), again.f1_max().value, again.fpr_at_tpr(positive="in")])
    estimates = pixels.intervals()
    for name, spread in zip(["auroc", "aupro", "f1_max", "fpr_at_tpr95"], np.std(drawn, axis=0), strict=True):
        width = estimates[name].high - estimates[name].low
        assert width == pytest.approx(2 * 1.96 * spread, rel=0.25), name


def test_one_anomalous_image_says_nothing_about_others():
    maps = np.arange(32.0).reshape(2, 4, 4)
    masks = maps > 28
    estimates = evaluate_maps(maps, masks)
    assert estimates["auroc"] == {"value": 1.0, "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 4)), "all 32 pixels of 2 images are normal"),
        (np.zeros((2, 4, 4)), np.ones((2, 4, 4)), "all 32 pixels of 2 images are anomalous"),
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 5)), r"image 0: expected map and mask .* got \(4, 4\) and \(4, 5\)"),
        (np.zeros((2, 1, 4, 4)), np.zeros((2, 1, 4, 4)), r"one shape \[H, W\], got \(1, 4, 4\)"),
        (np.zeros((2, 4, 4)), np.zeros((1, 4, 4)), "one mask for each map"),
        (np.full((1, 4, 4), np.nan), np.eye(4)[None], "map 0: 16 of 16 are NaN"),
        (np.zeros((1, 4, 4)), np.full((1, 4, 4), 7), "mask 0: expected 0 .normal. or 1"),
        (np.zeros((1, 2, 2)), np.uint8([[[0, 255], [128, 0]]]), "mask 0: expected 0 or 255"),
    ],
)
def test_what_is_refused(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        pixel_auroc(maps, masks)


def test_the_limit_must_be_a_rate():
    for limit in (0, 1.1, -0.3):
        with pytest.raises(ValueError, match="max_fpr: expected a rate"):
            aupro(np.eye(2)[None], np.eye(2)[None], limit)


def test_a_refused_map_leaves_those_before_it():
    pixels, good = PixelRanking(), PixelRanking()
    pixels.add(np.eye(3), np.eye(3))
    assert pixels.auroc() == 1
    with pytest.raises(ValueError, match="one shape"):
        pixels.add([1 - np.eye(3), np.eye(3)], [np.eye(3), np.eye(4)])
    good.add([np.eye(3), 1 - np.eye(3)], [np.eye(3), np.eye(3)])
    assert repr(pixels) == repr(good)
    assert pixels.auroc() == good.auroc() == 0.5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(40))
def test_tiny_and_tied_maps_give_ordered_finite_intervals(seed):
    maps, masks = random_maps(np.random.default_rng(seed))
    maps[0][0, -1] = np.random.default_rng(seed).choice([0, np.inf, -np.inf])
    for name, entry in evaluate_maps(maps, masks, seed=seed, replicates=30).items():
        assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1 + 1e-12, name

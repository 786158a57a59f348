"""Saturated overlap (MVTec LOCO's sPRO) against its definition, threshold by threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dracones.metrics import PixelRanking, aupro, evaluate_maps
from dracones.metrics.coverage import areas_inside
from dracones.metrics.regions import label_regions


def random_world(rng, images=None):
    """Maps with many ties, and up to three defects an image, which may overlap, with the pixels that saturate them."""
    maps, areas = [], []
    for _ in range(images or rng.integers(1, 5)):
        shape = rng.integers(3, 9, 2)
        maps.append(rng.integers(0, rng.integers(2, 40), shape).astype(np.float32))
        of_image = []
        for _ in range(rng.integers(0, 4)):
            pixels = rng.random(shape) < rng.choice([0.1, 0.4])
            if pixels.any():
                of_image.append((pixels, rng.choice([1, 2.5, 0.4 * pixels.sum(), pixels.sum()])))
        areas.append(of_image)
    certain = np.zeros(maps[0].shape, bool)
    certain[0, 0] = True
    areas[0].append((certain, 1))
    for scores, of_image in zip(maps, areas, strict=True):
        for pixels, _ in of_image:
            pixels[-1, -1] = False
        of_image[:] = [(pixels, min(s, pixels.sum())) for pixels, s in of_image if pixels.any()]
        assert scores.ndim == 2
    masks = [
        np.any([pixels for pixels, _ in each], axis=0) if each else np.zeros(m.shape, bool)
        for m, each in zip(maps, areas, strict=True)
    ]
    return maps, masks, areas


def by_definition(maps, masks, areas, limit):
    normal = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    defects = [(m[pixels], s) for m, each in zip(maps, areas, strict=True) for pixels, s in each]
    levels = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]
    across = [0.0, *((normal >= level).mean() for level in levels)]
    up = [0.0, *(np.mean([min((d >= level).sum() / s, 1) for d, s in defects]) for level in levels)]
    grid = np.append([x for x in across if x < limit], limit)
    inside = [(x, y) for x, y in zip(across, up, strict=True) if x < limit]
    end = np.interp(limit, across, up) if limit < 1 else up[-1]
    if limit in across:
        end = up[across.index(limit)]
    return np.trapezoid([*(y for _, y in inside), end], grid) / limit


@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.3, 1]))
@settings(max_examples=200, deadline=None)
def test_saturated_overlap_is_its_definition(seed, limit):
    maps, masks, areas = random_world(np.random.default_rng(seed))
    ranking = PixelRanking()
    ranking.add(maps, masks, areas=areas)
    assert ranking.saturates
    assert ranking.areas == sum(map(len, areas))
    assert ranking.auspro(limit) == pytest.approx(by_definition(maps, masks, areas, limit), abs=1e-9)


def test_where_all_of_every_region_is_asked_for_it_is_aupro():
    rng = np.random.default_rng(3)
    maps = rng.standard_normal((4, 9, 9)).astype(np.float32)
    masks = rng.random((4, 9, 9)) < 0.2
    areas = []
    for mask in masks:
        regions, count = label_regions(mask)
        areas.append([(regions == i + 1, (regions == i + 1).sum()) for i in range(count)])
    ranking = PixelRanking()
    ranking.add(maps, masks, areas=areas)
    assert ranking.auspro(0.3) == pytest.approx(aupro(maps, masks, 0.3), abs=1e-12)


def test_a_sufficient_share_has_found_it():
    """Of four marked pixels two are enough; the others are colder than everything normal."""
    heat, mask = np.zeros((1, 4, 4)), np.zeros((1, 4, 4), bool)
    mask[0, 0], heat[0, 0] = True, [9, 9, -1, -1]
    for saturation, expected in ((2, 1.0), (4, 0.5)):
        ranking = PixelRanking()
        ranking.add(heat, mask, areas=[[(mask[0], saturation)]])
        assert ranking.auspro() == pytest.approx(expected)


def test_a_region_of_interest_cuts_areas_and_what_saturates_them():
    heat, mask, inside = np.zeros((1, 2, 4)), np.zeros((1, 2, 4), bool), np.ones((2, 4), bool)
    mask[0, 0], heat[0, 0], inside[0, 2:] = True, [9, 9, -1, -1], False
    gone = np.zeros((2, 4), bool)
    gone[0, 3] = True
    ranking = PixelRanking()
    ranking.add(heat, mask, insides=[inside], areas=[[(mask[0], 4), (gone, 1)]])
    assert ranking.areas == 1
    assert ranking.auspro() == 1.0


def test_what_is_wrong_with_areas_is_said():
    heat, mask = np.zeros((1, 2, 2)), np.array([[[True, False], [False, False]]])
    for areas, message in (
        ([], "image 0: 1 anomalous pixels lie in none of its areas"),
        ([(np.ones((3, 2), bool), 1)], r"image 0, area 0: expected shape \(2, 2\), got \(3, 2\)"),
        ([(mask[0], 0)], "image 0, area 0: it takes more than 0 pixels to be found, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PixelRanking().add(heat, mask, areas=[areas])
    ranking = PixelRanking()
    ranking.add(heat, mask)
    with pytest.raises(ValueError, match="the areas of 0 of 1 anomalous pixels are known"):
        ranking.auspro()


def test_evaluate_maps_gives_it_with_an_interval():
    rng = np.random.default_rng(0)
    masks = np.zeros((40, 12, 12), bool)
    masks[:20, 3:7, 3:7] = True
    maps = rng.standard_normal((40, 12, 12)) + masks * rng.uniform(0.5, 4, (40, 1, 1))
    areas = [[(mask, 8)] if mask.any() else [] for mask in masks]
    found = evaluate_maps(maps, masks, areas=areas)
    assert list(found)[-1] == "auspro"
    ranking = PixelRanking()
    ranking.add(maps, masks, areas=areas)
    assert found["auspro"]["value"] == ranking.auspro()
    assert 0 < found["auspro"]["low"] < found["auspro"]["value"] < found["auspro"]["high"] < 1
    plain = evaluate_maps(maps, masks)
    assert "auspro" not in plain
    assert all(plain[name] == found[name] for name in plain)


def test_a_defect_smaller_than_what_saturates_its_kind_is_found_when_all_of_it_is_marked():
    small, large = np.zeros((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    small[0, :2], large[2:, :] = True, True
    found = areas_inside([(small, 10.0), (large, 5.0)], small | large, 0)
    assert [saturation for _, saturation in found] == [2.0, 5.0]

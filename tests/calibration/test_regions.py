"""Regions hotter than normal maps are: what they measure, and the promise behind their threshold."""

import numpy as np
import pytest
from scipy import ndimage

from dracones.calibration import HeatRange, TooFewScores, regions_of
from dracones.report import write_mask


def normal_heat(count=39, rate=0.05, seed=0):
    peaks = np.sort(np.random.default_rng(seed).normal(5, 1, count)).astype(np.float32)
    return HeatRange.of([(1.0, float(peak)) for peak in peaks]).at(rate)


def heat_with_squares():
    heat = np.full((40, 60), 1.0, dtype=np.float32)
    heat[5:11, 10:20] = 20.0
    heat[30:40, 50:60] = 12.0  # at the corner of the image
    heat[7, 15] = 25.0
    return heat


def test_area_box_peak_and_p_value_are_those_of_the_pixels():
    normal = normal_heat()
    first, second = regions_of(heat_with_squares(), normal)
    assert (first.area, first.box, first.peak, first.peak_at) == (60, (5, 10, 11, 20), 25.0, (7, 15))
    assert (second.area, second.box, second.peak) == (100, (30, 50, 40, 60), 12.0)
    assert first.p_value == 1 / 40
    between = float(np.float32((normal.peaks.scores[-1] + normal.peaks.scores[-2]) / 2))
    warm = np.zeros((8, 8), dtype=np.float32)
    warm[3, 4] = between
    assert [region.p_value for region in regions_of(warm, normal)] == [2 / 40]


def test_regions_are_those_of_an_independent_labelling():
    normal = normal_heat()
    heat = ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 40, (80, 90)), 2).astype(np.float32)
    labels, count = ndimage.label(heat > normal.threshold, structure=np.ones((3, 3)))
    assert count > 3
    found = regions_of(heat, normal)
    assert sorted(region.area for region in found) == sorted(np.bincount(labels.ravel())[1:])
    assert [region.peak for region in found] == sorted((region.peak for region in found), reverse=True)
    assert sum(region.area for region in found) == normal.hot(heat).sum()


def test_outlines_enclose_their_region_and_no_other():
    from skimage.draw import polygon2mask

    normal = normal_heat()
    heat = ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 40, (80, 90)), 2).astype(np.float32)
    labels, _ = ndimage.label(normal.hot(heat), structure=np.ones((3, 3)))
    for region in regions_of(heat, normal):
        own = labels == labels[region.peak_at]
        enclosed = np.zeros(heat.shape, dtype=int)
        for line in region.outlines:
            assert line[0] == line[-1], "a line that is not closed encloses nothing"
            enclosed += polygon2mask(heat.shape, np.array(line)[:, ::-1])
        differ = (enclosed % 2 == 1) != own
        # points on the line itself, and lines rounded to hundredths, may fall on either side
        assert differ.sum() <= 0.05 * own.sum() + 2


def test_what_was_never_looked_at_is_in_no_region():
    normal = normal_heat()
    heat = heat_with_squares()
    heat[:, 15:] = np.nan
    (region,) = regions_of(heat, normal)
    assert region.box == (5, 10, 11, 15)
    assert not normal.hot(heat)[:, 15:].any()
    assert regions_of(np.full((4, 4), np.nan, np.float32), normal) == []


def test_the_promise_of_pixels_holds_over_draws_of_maps():
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        maps = generator.standard_cauchy((20, 5, 5)).astype(np.float32)
        normal = HeatRange.of([(0.0, float(one.max())) for one in maps[:19]]).at(0.05, strict=True)
        alarms += bool(regions_of(maps[19], normal)) if normal.hot(maps[19]).any() else 0
    # binomial(2000, .05): four standard deviations are .0195
    assert abs(alarms / 2000 - 0.05) < 0.0195


def test_too_few_images_promise_nothing_or_are_refused():
    few = HeatRange.of([(0.0, float(peak)) for peak in range(10)])
    assert few.at(0.05).rate is None
    with pytest.raises(TooFewScores, match="at least 19"):
        few.at(0.05, strict=True)


def test_numbers_that_the_peaks_do_not_give_are_refused_and_older_ones_promise_what_scores_do():
    normal = normal_heat()
    peaks, numbers = normal.state()
    again = HeatRange.from_state(peaks, numbers)
    assert (again.threshold, again.rate, again.confidence) == (normal.threshold, 0.05, None)
    with pytest.raises(ValueError, match="calibrate anew"):
        HeatRange.from_state(peaks, {**numbers, "threshold": 3.0})
    older = {"usual": numbers["usual"], "threshold": numbers["threshold"]}
    assert HeatRange.from_state(peaks, older).rate is None
    assert HeatRange.from_state(peaks, older, false_alarm_rate=0.05).rate == 0.05


def test_masks_are_read_back_as_masks_of_their_images(tmp_path):
    from PIL import Image

    from dracones.images import open_images

    (tmp_path / "line").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "line" / "a.png")
    mask = normal_heat().hot(heat_with_squares())
    assert write_mask(tmp_path / "masks", "line/a.png", mask) == tmp_path / "masks" / "line" / "a_mask.png"
    images = open_images(tmp_path / "line", masks=tmp_path / "masks" / "line")
    assert (images.mask(0).numpy() == mask).all()

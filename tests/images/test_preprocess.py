"""One treatment for both sides: what it does, what it refuses, that it is written down."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from dracones.images import Preprocess, open_images


def images(count: int, channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels))
    return noise.astype(np.uint8)


@pytest.mark.parametrize("fit", ["stretch", "cover", "contain"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("native", [(16, 12), (5, 9), (8, 8), (3, 40)])
def test_output_has_the_named_shape_and_range(fit, interpolation, native):
    prepare = Preprocess(size=(8, 10), channels=3, fit=fit, interpolation=interpolation, crop=(6, 7))
    out = prepare(torch.rand(2, 1, *native))
    assert out.shape == (2, *prepare.image_shape)
    assert out.shape == (2, 3, 6, 7)
    assert 0 <= out.min() <= out.max() <= 1


def test_shrinking_is_antialiased_like_pillows():
    array = images(1, 3, 64, 48)[0]
    expected = np.asarray(Image.fromarray(array).resize((12, 16), Image.Resampling.BILINEAR)).astype(int)
    x = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    got = (Preprocess(size=(16, 12))(x, levels=256) * 255).round().permute(1, 2, 0).numpy().astype(int)
    assert np.abs(got - expected).max() <= 1


def test_gray_is_luma_and_back_is_copied():
    red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, 4, 4)
    assert Preprocess(channels=1)(red)[0, 0, 0].item() == pytest.approx(0.299)
    gray = torch.rand(1, 4, 4)
    assert torch.equal(Preprocess(channels=3)(gray), gray.expand(3, 4, 4))


def test_eight_bit_images_keep_their_levels():
    out = Preprocess(size=5, channels=1)(torch.rand(2, 3, 9, 9), levels=256)
    assert torch.equal((out * 255).round() / 255, out)
    untouched = torch.rand(1, 3, 4, 4)
    assert torch.equal(Preprocess()(untouched, levels=256), untouched)


def test_cover_keeps_proportions_and_contain_keeps_all():
    x = torch.zeros(1, 1, 10, 20)
    x[..., 10:] = 1
    covered = Preprocess(size=10, fit="cover")(x)
    assert torch.equal(covered, x[..., 5:15])
    contained = Preprocess(size=20, fit="contain")(x)
    assert torch.equal(contained[..., 5:15, :], x)
    assert torch.equal(contained[..., 0, :], x[..., 0, :])


def test_mask_moves_with_its_image():
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[4:12, 10:20] = True
    for fit in ("stretch", "cover", "contain"):
        prepare = Preprocess(size=(10, 10), fit=fit, interpolation="nearest", crop=8)
        assert torch.equal(prepare.mask(mask), prepare(mask[None].float())[0] > 0.5)
        assert prepare.mask(mask).any()


@pytest.mark.parametrize("fit", ["stretch", "cover", "contain"])
@pytest.mark.parametrize("native", [(24, 40), (40, 24), (32, 32)])
def test_a_map_goes_back_over_its_image(fit, native):
    """A smooth image, treated and laid back, lies over itself; what was cut off is NaN."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, native[0]), torch.linspace(0, 1, native[1]), indexing="ij")
    image = 0.5 * rows + 0.5 * columns
    prepare = Preprocess(size=(32, 32), fit=fit)
    back = prepare.restore(prepare(image[None]), native)[0]
    seen = ~back.isnan()
    assert back.shape == native
    assert seen.float().mean() >= (1 if fit != "cover" else 0.5 if native[0] != native[1] else 1)
    assert (back - image)[seen].abs().max() < 0.05


def test_a_cropped_map_goes_back_to_the_centre():
    prepare = Preprocess(crop=4)
    back = prepare.restore(torch.ones(1, 4, 4), (8, 10))[0]
    assert torch.equal(~back.isnan(), torch.nn.functional.pad(torch.ones(4, 4), (3, 3, 2, 2)) > 0)


def test_round_trip_through_json():
    prepare = Preprocess(size=(8, 9), channels=1, fit="cover", crop=(4, 5), interpolation="bicubic")
    assert Preprocess.model_validate_json(prepare.model_dump_json()) == prepare
    assert Preprocess(size=8).size == (8, 8)
    with pytest.raises(ValidationError, match="frozen"):
        prepare.size = (1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 4)}, "at least 1"),
        ({"size": 4, "crop": 8}, "larger than the image"),
        ({"channels": 0}, "greater than or equal to 1"),
        ({"sise": 4}, "Extra inputs"),
        ({"fit": "squeeze"}, "'stretch', 'cover' or 'contain'"),
    ],
)
def test_impossible_treatments_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Preprocess(**options)


def test_what_was_not_named_is_not_done():
    inferred = Preprocess.infer(open_images(images(3, 1, 28, 28)))
    assert inferred.image_shape == (1, 28, 28)
    assert inferred.size is None
    with pytest.raises(
        ValueError, match=r"32x32 pixels where 28x28 are expected and no common resizing.*size=\(28, 28\)"
    ):
        inferred(torch.rand(1, 32, 32))
    with pytest.raises(ValueError, match="3 channels where 1 are expected and no conversion is named"):
        inferred(torch.rand(3, 28, 28))
    with pytest.raises(ValueError, match="5 channels cannot become one of 3"):
        Preprocess(channels=3)(torch.rand(5, 8, 8))
    with pytest.raises(ValueError, match="4x4 pixels are fewer than the crop of 8x8"):
        Preprocess(crop=8)(torch.rand(1, 4, 4))


def test_gray_as_rgb_and_back_loses_nothing_and_needs_no_option():
    gray = Preprocess.infer(open_images(images(3, 1, 28, 28)))
    picture = torch.rand(1, 28, 28)
    assert torch.equal(gray(picture.repeat(3, 1, 1)), gray(picture))
    colour = Preprocess.infer(open_images(images(3, 3, 28, 28)))
    assert torch.equal(colour(picture), picture.repeat(3, 1, 1))


def test_infer_refuses_mixed_sets_by_name(tmp_path):
    for name, size, mode in (("a", (8, 8), "RGB"), ("b", (9, 8), "RGB"), ("c", (8, 8), "L")):
        Image.new(mode, size).save(tmp_path / f"{name}.png")
    mixed = open_images(tmp_path)
    with pytest.raises(ValueError, match=r"differ in size: 8x8 \(a.png\), 8x9 \(b.png\); name a common one"):
        Preprocess.infer(mixed)
    with pytest.warns(UserWarning, match=r"have 1 and 3 channels .* read as RGB"):
        assert Preprocess.infer(mixed, size=8).image_shape == (3, 8, 8)
    assert Preprocess.infer(mixed, size=8, channels=3).image_shape == (3, 8, 8)

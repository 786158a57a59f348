"""Arrays and tensors, in memory and in files: read one way or refused."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from dracones.images import Limits, Preprocess, open_images


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 9, 7), (1, 9, 7)),
        ((5, 9, 7, 3), (3, 9, 7)),
        ((5, 9, 7, 1), (1, 9, 7)),
        ((5, 4, 9, 7), (4, 9, 7)),
        ((5, 1, 9, 7), (1, 9, 7)),
        ((0, 9, 7, 3), None),
    ],
)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "float64", "bool", "tensor"])
def test_arrays_whose_axes_leave_no_doubt(shape, expected, kind):
    array = np.random.default_rng(0).random(shape)
    array = {"uint8": array * 255, "uint16": array * 65535, "bool": array > 0.5}.get(kind, array)
    array = torch.from_numpy(array.astype(np.float32)) if kind == "tensor" else array.astype(kind)
    images = open_images(array)
    assert len(images) == shape[0]
    if expected is None:
        return
    assert images.read(2).shape == expected
    plain = torch.as_tensor(array[2].astype(np.float32) if kind != "tensor" else array[2])
    plain = plain / {"uint8": 255, "uint16": 65535}.get(kind, 1)
    plain = plain[None] if plain.ndim == 2 else plain.permute(2, 0, 1) if shape[1] == 9 else plain
    assert torch.equal(images.read(2), plain)
    assert torch.equal(images.to_tensor()[2], plain)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 3, 9, 3), "both axis 1 and axis 3 could be channels; say layout='NCHW'"),
        ((5, 8, 9, 7), "neither axis 1 nor axis 3 alone is 1, 3, 4 or at most 32"),
        ((9, 7, 3), "may be one colour image or 9 gray ones"),
        ((3, 9, 7), "may be one colour image or 3 gray ones"),
        ((9, 7), r"expected \[N, H, W\]"),
        ((5, 0, 7), "without pixels"),
    ],
)
def test_arrays_whose_axes_leave_a_doubt_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        open_images(np.zeros(shape, np.uint8))


def test_layout_settles_the_doubt():
    array = np.zeros((5, 3, 9, 3), np.uint8)
    assert open_images(array, layout="NCHW").read(0).shape == (3, 9, 3)
    assert open_images(array, layout="NHWC").read(0).shape == (3, 3, 9)
    assert len(open_images(np.zeros((3, 9, 7), np.uint8), layout="NHW")) == 3
    with pytest.raises(ValueError, match=r"shape \(5, 3, 9, 3\), which is not NHW"):
        open_images(array, layout="NHW")


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.full((2, 8, 8), 200.0), ValueError, r"floats from 200 to 200.*\[0, 1\]: divide by 255, or give uint8"),
        (np.full((2, 8, 8), -1.5), ValueError, "undo a normalisation"),
        (np.where(np.eye(8) > 0, np.nan, 0.5)[None], ValueError, "8 NaN values"),
        (np.zeros((2, 8, 8), np.int64), TypeError, "holds int64; expected uint8"),
        (np.zeros((2, 8, 8), object), TypeError, "holds object"),
        (np.array(["a"]), TypeError, "expected uint8"),
    ],
)
def test_values_without_a_known_scale_are_refused(array, error, message):
    with pytest.raises(error, match=message):
        open_images(array)


def test_labels_are_checked():
    array = np.zeros((3, 8, 8, 1), np.uint8)
    assert open_images(array, labels=torch.tensor([1, 0, 2])).labels.dtype == np.int64
    with pytest.raises(ValueError, match="2 labels for 3 images"):
        open_images(array, labels=[0, 1])
    with pytest.raises(TypeError, match="whole numbers are expected"):
        open_images(array, labels=[0.5, 1, 2])


def test_the_callers_array_is_neither_changed_nor_shared():
    array = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
    kept = array.copy()
    images = open_images(array, preprocess=Preprocess())
    next(images.batches(4)).images.zero_()
    images.read(0).zero_()
    assert np.array_equal(array, kept)


def archive(path, **arrays):
    np.savez(path, **arrays)
    return path


def encoded_set(pixels, count=5, **more):
    files = []
    for i in range(count):
        stream = io.BytesIO()
        Image.fromarray(pixels(i)).save(stream, "PNG")
        files.append(stream.getvalue())
    offsets = np.cumsum([0, *map(len, files)])
    return {"data": np.frombuffer(b"".join(files), np.uint8), "offsets": offsets, **more}


def test_encoded_images_in_an_archive(tmp_path, pixels):
    names = np.array([f"n{i}.png" for i in range(5)])
    more = {"labels": np.array([0, 1, 1, 0, 1]), "names": names, "classes": np.array(["a", "b"])}
    images = open_images(archive(tmp_path / "set.npz", **encoded_set(pixels, **more)))
    assert images.names == names.tolist()
    assert images.labels.tolist() == [0, 1, 1, 0, 1]
    assert images.classes == ("a", "b")
    assert torch.equal(images.read(3), torch.from_numpy(pixels(3)).permute(2, 0, 1) / 255)
    assert images.native_shape(0) == (3, 8, 8)
    unlabelled = open_images(archive(tmp_path / "u.npz", **encoded_set(pixels, labels=np.full(5, -1))))
    assert unlabelled.labels is None


def test_damaged_encoded_images_are_skipped_or_refused(tmp_path, pixels):
    good = encoded_set(pixels)
    broken = good["data"].copy()
    broken[good["offsets"][2] : good["offsets"][2] + 8] = 0
    images = open_images(archive(tmp_path / "a.npz", **(good | {"data": broken})))
    assert len(images.to_tensor()) == 4
    assert "not an image" in images.skipped[0].reason
    for offsets in (good["offsets"][::-1], good["offsets"] + 10**6, np.zeros((2, 2))):
        with pytest.raises(ValueError, match="'offsets' must rise from 0"):
            open_images(archive(tmp_path / "b.npz", **(good | {"offsets": offsets})))
    with pytest.raises(ValueError, match="'data' is float64"):
        open_images(archive(tmp_path / "c.npz", **(good | {"data": np.zeros(10)})))
    with pytest.raises(ValueError, match="3 'names' for 5 images"):
        open_images(archive(tmp_path / "d.npz", **(good | {"names": np.array(["a"] * 3)})))


def test_arrays_in_an_archive_by_name_and_by_part(tmp_path, pixels):
    x, y = np.stack([pixels(i) for i in range(4)]), np.arange(4)
    path = archive(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    assert open_images(f"{path}:train").labels.tolist() == [0, 1, 2, 3]
    assert len(open_images(f"{path}:x_test")) == 2
    with pytest.raises(ValueError, match=r"not clear; name one as mnist.npz:NAME, available: x_train, y_train"):
        open_images(path)
    with pytest.raises(ValueError, match="there is no array 'valid'"):
        open_images(f"{path}:valid")
    assert len(open_images(archive(tmp_path / "one.npz", whatever=x))) == 4
    assert open_images(archive(tmp_path / "two.npz", images=x, labels=y)).labels.tolist() == [0, 1, 2, 3]


def test_npy_is_mapped_not_read(tmp_path, pixels):
    x = np.stack([pixels(i) for i in range(4)])
    np.save(tmp_path / "x.npy", x)
    images = open_images(tmp_path / "x.npy")
    assert isinstance(images.source.array.base, np.memmap) or isinstance(images.source.array, np.memmap)
    assert torch.equal(images.to_tensor(), open_images(x).to_tensor())


def test_no_array_file_is_ever_unpickled(tmp_path):
    class Boom:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "boom"),))

    np.save(tmp_path / "a.npy", np.array([Boom()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", np.array([Boom()], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=r"a.npy is no .npy file|a.npz: array 'arr_0' cannot be read"):
            open_images(tmp_path / name)
    assert not (tmp_path / "boom").exists()


def test_damaged_archives(tmp_path, pixels):
    path = archive(tmp_path / "a.npz", images=np.stack([pixels(i) for i in range(4)]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"is no .npz file that can be read"):
        open_images(path)
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(ValueError, match=r"is no .npy file that can be read"):
        open_images(tmp_path / "b.npy")
    boast = np.lib.format.header_data_from_array_1_0(np.zeros((1, 8, 8), np.uint8)) | {"shape": (10**9, 10**4, 10)}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, boast)
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as boasting:
        boasting.writestr("images.npy", stream.getvalue() + bytes(64))
    with pytest.raises(ValueError, match="array 'images' cannot be read"):
        open_images(tmp_path / "c.npz")
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"'images' has .* bytes, more than the 100 of Limits\(max_array_bytes"):
        open_images(path, limits=Limits(max_array_bytes=100))


@pytest.mark.parametrize(("shape", "channels"), [((2, 40, 36, 5), 5), ((2, 7, 40, 36), 7), ((2, 40, 40, 32), 32)])
def test_another_number_of_channels_is_the_short_axis(shape, channels):
    assert open_images(np.zeros(shape, np.uint8)).read(0).shape[0] == channels
    with pytest.raises(ValueError, match="say layout="):
        open_images(np.zeros((2, 20, 36, 20), np.uint8))


def test_bfloat16_tensors_are_read_as_the_numbers_they_hold():
    images = torch.rand(3, 1, 9, 9).bfloat16()
    assert torch.equal(open_images(images).to_tensor(), images.float())
    assert torch.equal(open_images(list(images)).read(1), images[1].float())


def _with_directory(path, place, value):
    """The archive with one byte of its central directory changed."""
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x01\x02") + place] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({6: 99}, r"d.npz is no .npz file that can be read: zip file version 9.9"),
        ({9: 8, 46: 0xFF}, r"d.npz is no .npz file that can be read: 'utf-8' codec can't decode"),
        ({10: 77}, r"d.npz: array 'images' cannot be read: That compression method is not supported"),
        ({8: 1}, r"d.npz: array 'images' cannot be read: File 'images.npy' is encrypted"),
    ],
    ids=["version to come", "name that is no text", "unknown compression", "encrypted"],
)
def test_archives_beyond_what_is_read_are_refused_by_path(tmp_path, change, message):
    path = archive(tmp_path / "d.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    for place, value in change.items():
        _with_directory(path, place, value)
    with pytest.raises(ValueError, match=message) as refused:
        open_images(path)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.uint8(5), "labels": np.arange(3)}, r"has shape \(\); expected \[N, H, W\]"),
        ({"images": np.zeros((3, 8, 8, 3), np.uint8), "labels": np.arange(2)}, "a.npz: 2 labels for 3 images"),
        ({"data": np.zeros(9, np.uint8), "offsets": np.array(3)}, "'offsets' must rise from 0"),
        ({"data": np.zeros(9, np.uint8), "offsets": np.array(["x"])}, "whole numbers in one dimension; got <U1"),
        ({"data": np.zeros(9, np.uint8), "offsets": np.array([np.nan, 3])}, "'offsets' must rise from 0.*float64"),
        ({"data": np.zeros(9, np.uint8), "offsets": np.array([5, 3], np.uint64)}, "'offsets' must rise from 0"),
    ],
)
def test_archives_of_arrays_that_are_no_images_are_refused_in_words(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        open_images(archive(tmp_path / "a.npz", **arrays))


@pytest.mark.parametrize("name", ["images", "labels", "classes"])
def test_what_is_no_array_in_an_archive_is_named(tmp_path, name):
    path = archive(tmp_path / "a.npz", data=np.zeros((2, 8, 8, 3), np.uint8))
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr(name, b"some words")
    with pytest.raises(
        ValueError, match=f"a.npz: '{name}' is no array in NumPy's format; it begins with b'some words'"
    ):
        open_images(path)


def test_labels_of_a_whole_archive_belong_to_images_that_are_as_many(tmp_path):
    x = np.zeros((4, 8, 8, 3), np.uint8)
    path = archive(tmp_path / "a.npz", first=x, second=x[:2], y=np.arange(4))
    assert open_images(f"{path}:first").labels.tolist() == [0, 1, 2, 3]
    assert open_images(f"{path}:second").labels is None


def test_a_single_class_name_is_one_class(tmp_path):
    path = archive(tmp_path / "a.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=[0, 0], classes=np.array("cat"))
    assert open_images(path).classes == ("cat",)


def test_a_layout_that_is_not_known_is_named():
    with pytest.raises(ValueError, match="layout='HWN' is not known; expected NHW, NHWC, NCHW"):
        open_images(np.zeros((5, 3, 9, 3), np.uint8), layout="HWN")

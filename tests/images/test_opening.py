"""`open_images`: whatever the source, the right images or a message that says what to do."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from dracones.images import Limits, Preprocess, UnreadableImage, open_images
from dracones.images.folder import find_images, natural_key


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


# ---- folders and files


def test_natural_order_at_every_depth(tmp_path, pixels):
    for name in ("b10/x.png", "b9/x.png", "a.png", "B2/x10.png", "B2/x2.png", "c.JPG", "d.tif"):
        save(tmp_path / name, pixels())
    names = open_images(tmp_path).names
    assert names == ["a.png", "B2/x2.png", "B2/x10.png", "b9/x.png", "b10/x.png", "c.JPG", "d.tif"]
    assert sorted(["x1", "X1", "x01"], key=natural_key) == sorted(["x01", "x1", "X1"], key=natural_key)


def test_classes_are_folders_where_all_images_lie_in_some(tmp_path, pixels):
    for name in ("cat/1.png", "dog/old/1.png", "dog/2.png"):
        save(tmp_path / name, pixels())
    images = open_images(tmp_path)
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 1, 1]
    assert images.groups == ["cat", "dog", "dog"]
    save(tmp_path / "stray.png", pixels())
    assert open_images(tmp_path).labels is None
    assert open_images(tmp_path).groups[-1] == ""


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_links_are_followed_once(tmp_path, pixels):
    save(tmp_path / "a" / "1.png", pixels())
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "other").mkdir()
    save(tmp_path / "elsewhere.png", pixels())
    (tmp_path / "other" / "linked.png").symlink_to(tmp_path / "elsewhere.png")
    images, skipped = find_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in images] == [
        "a/1.png",
        "elsewhere.png",
        "other/linked.png",
    ]
    assert [(item.name, item.reason, item.is_image) for item in skipped] == [
        ("a/up", "leads to a folder that was read already", False),
        ("again", "leads to a folder that was read already", False),
        ("dead.png", "no regular file, or a link to nowhere", True),
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_opened(tmp_path, pixels):
    save(tmp_path / "a.png", pixels())
    os.mkfifo(tmp_path / "pipe.png")
    assert open_images(tmp_path).names == ["a.png"]
    with pytest.raises(UnreadableImage, match=r"pipe.png: not a regular file"):
        open_images([tmp_path / "pipe.png"]).read(0)


def test_names_are_relative_wherever_one_stands(tmp_path, pixels, monkeypatch):
    save(tmp_path / "in" / "a.png", pixels())
    save(tmp_path / "b.png", pixels())
    monkeypatch.chdir(tmp_path)
    for here in (".", "./", str(tmp_path), f"{tmp_path}/in/.."):
        assert open_images(here).names == ["b.png", "in/a.png"]
    assert open_images("in").names == ["a.png"]
    assert open_images("*.png").names == ["b.png"]


def test_files_that_vanish_are_skipped(tmp_path, pixels):
    for i in range(3):
        save(tmp_path / f"{i}.png", pixels())
    images = open_images(tmp_path)
    (tmp_path / "1.png").unlink()
    assert len(images.to_tensor()) == 2
    assert images.skipped[0].reason == "the file cannot be opened: No such file or directory"


def test_size_of_a_file_is_looked_at_first(tmp_path, pixels):
    save(tmp_path / "a.png", pixels())
    with pytest.raises(UnreadableImage, match=r"more than the limit of 100 \(max_file_bytes\)"):
        open_images(tmp_path, limits=Limits(max_file_bytes=100)).read(0)


def test_one_file_a_pattern_and_a_list(tmp_path, pixels):
    for i in range(11):
        save(tmp_path / "run" / f"p{i}.png", pixels(i))
    save(tmp_path / "other" / "q.png", pixels(50))
    one = open_images(tmp_path / "run" / "p3.png")
    assert one.names == ["p3.png"]
    matched = open_images(str(tmp_path / "run" / "p*.png"))
    assert matched.names == [f"p{i}.png" for i in range(11)]
    deep = open_images(str(tmp_path / "**" / "*.png"))
    assert deep.names[0] == "other/q.png"
    assert len(deep) == 12
    listed = open_images([tmp_path / "run" / "p5.png", str(tmp_path / "other" / "q.png")])
    assert listed.names == ["run/p5.png", "other/q.png"]
    assert torch.equal(listed.read(0), matched.read(5))
    with pytest.raises(ValueError, match="no image files match"):
        open_images(str(tmp_path / "*.gif"))
    with pytest.raises(FileNotFoundError, match=r"did you mean .*p5.png"):
        open_images([tmp_path / "run" / "p55.png"])
    with pytest.raises(ValueError, match="is a folder; a list of images holds files only"):
        open_images([tmp_path / "run"])


def test_paths_that_are_not_there_name_the_nearest(tmp_path, pixels):
    save(tmp_path / "bottle" / "good" / "1.png", pixels())
    with pytest.raises(FileNotFoundError, match=r"bottel; did you mean .*bottle"):
        open_images(tmp_path / "bottel")
    with pytest.raises(FileNotFoundError, match=r"did you mean .*bottle"):
        open_images(f"{tmp_path}/botle:train")
    with pytest.raises(FileNotFoundError, match=r"did you mean .*bottle"):
        open_images(tmp_path / "botle" / "good" / "far")
    with pytest.raises(FileNotFoundError, match=r"zzz; .* holds bottle; give a folder or file"):
        open_images(tmp_path / "zzz")


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match=r"no images in .* \(it is empty\); expected .bmp"):
        open_images(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"1 other files, e.g. notes.txt"):
        open_images(tmp_path)
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"holds no image files, but sets; name one: .*images.npy"):
        open_images(tmp_path)
    with pytest.raises(ValueError, match=r"notes.txt is not read as images"):
        open_images(tmp_path / "notes.txt")
    (tmp_path / "set.tar.gz").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"set.tar.gz is packed; unpack it first"):
        open_images(tmp_path / "set.tar.gz")
    with pytest.raises(ValueError, match="has no parts, so ':train' names nothing"):
        open_images(f"{tmp_path}:train")


# ---- datasets and loaders


class Pictures(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def test_items_of_many_forms(pixels):
    array = pixels(1)
    as_float = torch.from_numpy(array).permute(2, 0, 1) / 255
    items = [
        Image.fromarray(array),
        array,
        as_float,
        (as_float, 3),
        {"image": Image.fromarray(array), "label": 1},
        [array, 0],
        torch.from_numpy(array).permute(2, 0, 1),
    ]
    images = open_images(Pictures(items))
    assert len(images.to_tensor()) == len(items)
    for i in range(len(items)):
        assert torch.equal(images.read(i), as_float)
    assert torch.equal(open_images(items).to_tensor(), images.to_tensor())


def test_bad_items_are_skipped_with_a_reason(pixels):
    images = open_images(Pictures([pixels(), RuntimeError("disk on fire"), pixels() * 2.0, np.zeros((2, 2, 2, 2))]))
    assert len(images.with_preprocess(Preprocess()).to_tensor()) == 1
    assert [item.reason.split(":")[0] for item in images.skipped] == [
        "the dataset raised RuntimeError",
        "float pixels from 0 to 510 where [0, 1] is expected; scale the image or save 8 or 16 bits",
        "an image of shape (2, 2, 2, 2); expected [H, W], [H, W, C] or a tensor [C, H, W]",
    ]


def test_items_that_are_no_images():
    with pytest.raises(TypeError, match=r"mapping with keys \['label', 'text'\]; expected one called 'image'"):
        open_images(Pictures([{"text": "a", "label": 1}])).read(0)
    with pytest.raises(TypeError, match="is a str; expected an image"):
        open_images(Pictures([("a", 1)])).read(0)


def test_loaders_give_their_dataset():
    data = TensorDataset(torch.rand(10, 1, 8, 8), torch.arange(10))
    images = open_images(DataLoader(data, batch_size=3, shuffle=True))
    assert torch.equal(images.to_tensor(), data.tensors[0])
    some = open_images(DataLoader(data, sampler=SubsetRandomSampler([7, 2])))
    assert torch.equal(some.to_tensor(), data.tensors[0][[2, 7]])
    assert some.labels.tolist() == [2, 7]

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    for source in (Stream(), DataLoader(Stream())):
        with pytest.raises(TypeError, match="has no length and no order"):
            open_images(source)


def test_torchvision_labels_are_found(tmp_path, pixels):
    from torchvision.datasets import ImageFolder

    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        save(tmp_path / name, pixels())
    images = open_images(ImageFolder(str(tmp_path)))
    assert images.labels.tolist() == [0, 1, 1]
    assert images.classes == ("cat", "dog")
    assert torch.equal(images.to_tensor(), open_images(tmp_path).to_tensor())
    some = open_images(Subset(ImageFolder(str(tmp_path)), [2, 0]))
    assert some.labels.tolist() == [1, 0]


def test_values_that_are_no_labels_are_not_taken_for_them():
    x = torch.rand(4, 1, 8, 8)
    assert open_images(TensorDataset(x)).labels is None
    assert open_images(TensorDataset(x, torch.rand(4))).labels is None
    assert open_images(TensorDataset(x, torch.zeros(4, 2, dtype=torch.long))).labels is None
    assert open_images(TensorDataset(x, torch.tensor([3, 1, 2, 0]))).labels.tolist() == [3, 1, 2, 0]


@pytest.mark.parametrize("source", [3, None, {"a": 1}, b"bytes"])
def test_what_is_no_source(source):
    with pytest.raises(TypeError, match=rf"images cannot be opened from a {type(source).__name__}"):
        open_images(source)


def test_nothing_at_all():
    with pytest.raises(ValueError, match="the list is empty"):
        open_images([])


def test_a_collection_is_returned_or_viewed():
    images = open_images(np.zeros((2, 8, 8), np.uint8))
    assert open_images(images) is images
    assert open_images(images, preprocess=Preprocess(size=4)).read(0).shape == (1, 4, 4)
    with pytest.raises(TypeError, match="belong to the source"):
        open_images(images, labels=[0, 1])


# ---- images by name


def test_named_images():
    crops = open_images("builtin:gravel?count=6&size=16&seed=3&right=0.5")
    assert crops.to_tensor().shape == (6, 1, 16, 16)
    assert crops.fingerprint() == open_images("builtin:gravel?count=6&size=16&seed=3&right=0.5").fingerprint()
    assert crops.fingerprint() != open_images("builtin:gravel?count=6&size=16&seed=4&right=0.5").fingerprint()
    assert open_images("builtin:coffee").read(0).shape == (3, 400, 600)
    assert open_images("builtin:gravel?channels=3").read(0).shape[0] == 3
    noise = open_images("synthetic:uniform?count=3&size=8&channels=1")
    assert noise.to_tensor().shape == (3, 1, 8, 8)
    scenes = open_images("scenes:grass?objects=brick&count=4&size=32")
    assert scenes.labels.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("builtin:gravl", "no built-in photograph 'gravl'; did you mean gravel"),
        ("builtin:", "needs a photograph's name: astronaut"),
        ("builtin:gravel?count=3", "crops need both count and size"),
        ("builtin:gravel?sise=3", r"no option 'sise' \(did you mean 'size'\?\); there are count, size"),
        ("builtin:gravel?size=x&count=1", "size='x' is no int"),
        ("builtin:gravel?size=-3&count=1", "is negative"),
        ("builtin:gravel?size=9999&count=1", "crops of 9999x9999 out of a photograph"),
        ("builtin:gravel?left=0.7&right=0.2", "are shares of the width"),
        ("synthetic:pink", "name one of synthetic:uniform, synthetic:gaussian, synthetic:constant"),
        ("scenes:gravel?objects=trolls", "no built-in photograph 'trolls'"),
    ],
)
def test_named_images_that_are_not_there(spec, message):
    with pytest.raises(ValueError, match=message):
        open_images(spec)


def test_what_lies_in_memory_reads_well_in_a_sentence():
    assert open_images(np.zeros((2, 8, 8), np.uint8)).name_of_source == "the ndarray given"
    images = open_images(torch.zeros(2, 1, 8, 8))
    assert (images.name_of_source, images.name(1)) == ("the tensor given", "tensor[1]")

"""Tar and Parquet files of images: read at their place, damage reported, limits honoured."""

import io
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from dracones.images import Limits, Preprocess, UnreadableImage, open_images

COUNT = 150


def encoded(i, side=8):
    pixels = np.random.default_rng(i).integers(0, 255, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue(), pixels


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def members():
    return [(f"{i:05}.png", encoded(i)[0]) for i in range(20)]


def read_all(images):
    return np.stack(
        [(images.read(i).numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8) for i in range(len(images))]
    )


def test_a_webdataset_shard_is_its_images_with_their_classes(tmp_path):
    members = []
    for i in range(12):
        members += [
            (f"a.b/{i:05}.png", encoded(i)[0]),
            (f"a.b/{i:05}.cls", str(i % 3).encode()),
            (f"a.b/{i:05}.json", b"{}"),
        ]
    images = open_images(write_tar(tmp_path / "s.tar", members))
    assert images.names == [f"a.b/{i:05}.png" for i in range(12)]
    assert images.labels.tolist() == [i % 3 for i in range(12)]
    assert np.array_equal(read_all(images), [encoded(i)[1] for i in range(12)])
    assert images.notes == ["s.tar holds files beside its images, which were not scored: 12 .cls, 12 .json"]
    assert images.skipped == []


def test_labels_are_all_or_none(tmp_path, members):
    assert open_images(write_tar(tmp_path / "s.tar", [*members, ("00000.cls", b"1")])).labels is None


def test_long_and_strange_names_and_folders(tmp_path, members):
    named = [("d/" * 90 + "größe.png", members[0][1]), ("two\nlines.png", members[1][1])]
    images = open_images(write_tar(tmp_path / "s.tar", named))
    assert images.names == ["d/" * 90 + "größe.png", "two\\x0alines.png"]
    assert np.array_equal(read_all(images)[1], encoded(1)[1])


def header_of(data, name):
    return data.index(name.encode())


@pytest.mark.parametrize("spoil", [b"\xff" * 512, b"\0" * 512])
def test_a_damaged_header_loses_its_file_alone_and_is_reported(tmp_path, members, spoil):
    path = write_tar(tmp_path / "s.tar", members)
    data = bytearray(path.read_bytes())
    at = header_of(data, "00007.png")
    data[at : at + 512] = spoil
    path.write_bytes(data)
    images = open_images(path)
    assert images.names == [name for name, _ in members if name != "00007.png"]
    (found,) = images.skipped
    assert (found.name, found.is_image) == ("s.tar", True)
    assert f"damaged at byte {at:,}" in found.reason


def test_damaged_bytes_of_one_image_are_that_image_s(tmp_path, members):
    path = write_tar(tmp_path / "s.tar", members)
    data = bytearray(path.read_bytes())
    at = header_of(data, "00007.png") + 512
    data[at : at + 64] = b"\xff" * 64
    path.write_bytes(data)
    images = open_images(path, preprocess=Preprocess(size=8, channels=3))
    assert sum(len(batch.images) for batch in images.batches(6)) == 19
    assert [item.name for item in images.skipped] == ["00007.png"]


def test_wherever_a_tar_is_cut_off_it_is_said(tmp_path, members):
    path = write_tar(tmp_path / "s.tar", members[:4])
    whole = path.read_bytes()
    last = header_of(whole, "00003.png")
    for cut in range(512, last + 1024, 256):
        path.write_bytes(whole[:cut])
        images = open_images(path)
        assert len(images.skipped) >= 1, cut
        assert all("cut off" in item.reason or "damaged" in item.reason for item in images.skipped)
        assert images.names == [f"0000{i}.png" for i in range(len(images))]


def test_archives_joined_to_one_are_not_read_half_in_silence(tmp_path, members):
    first = write_tar(tmp_path / "a.tar", members[:3]).read_bytes()
    (tmp_path / "b.tar").write_bytes(first + write_tar(tmp_path / "c.tar", members[3:]).read_bytes())
    images = open_images(tmp_path / "b.tar")
    assert len(images) == 3
    assert "more behind the mark of its end" in images.skipped[0].reason


def test_links_in_an_archive_are_reported_and_never_followed(tmp_path, members):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("x.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
        info = tarfile.TarInfo("y.png")
        info.size = len(members[0][1])
        archive.addfile(info, io.BytesIO(members[0][1]))
    images = open_images(path)
    assert images.names == ["y.png"]
    assert images.skipped[0].name == "s.tar/x.png"


def test_what_is_no_tar_is_refused(tmp_path, members):
    for content in (b"", b"no tar at all" * 100, b"\x1f\x8b\x08" + b"\0" * 600):
        (tmp_path / "s.tar").write_bytes(content)
        with pytest.raises(ValueError, match=r"no plain tar file|no images in"):
            open_images(tmp_path / "s.tar")
    write_tar(tmp_path / "s.tar", [("a.txt", b"text")])
    with pytest.raises(ValueError, match=r"no images in .*1 \.txt"):
        open_images(tmp_path / "s.tar")


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_limits_in_bytes_hold_inside_a_shard(tmp_path, kind):
    data = [encoded(0)[0], encoded(1, side=64)[0], b""]
    if kind == "tar":
        path = write_tar(tmp_path / "s.tar", [(f"{i}.png", each) for i, each in enumerate(data)])
    else:
        path = tmp_path / "s.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"image": data}), path)
    images = open_images(path, limits=Limits(max_file_bytes=1000))
    images.read(0)
    with pytest.raises(UnreadableImage, match="more than the limit of 1,000"):
        images.read(1)
    with pytest.raises(UnreadableImage, match=r"empty|no bytes"):
        images.read(2)


def write_parquet(file, /, group=40, **columns):
    table = {"image": [encoded(i)[0] for i in range(COUNT)], **columns}
    pyarrow.parquet.write_table(pyarrow.table(table), file, row_group_size=group)
    return file


def test_parquet_rows_are_images_in_any_order(tmp_path):
    names = [f"p/{i}.png" for i in range(COUNT)]
    images = open_images(write_parquet(tmp_path / "s.parquet", path=names, label=list(range(COUNT)), group=100))
    assert images.names == names
    assert images.labels.tolist() == list(range(COUNT))
    expected = [encoded(i)[1] for i in range(COUNT)]
    assert np.array_equal(read_all(images), expected)
    order = np.random.default_rng(0).permutation(COUNT)
    assert np.array_equal(read_all(images.subset(order)), [expected[i] for i in order])
    together = list(images.with_preprocess(Preprocess(size=8, channels=3)).batches(16, workers=3))
    assert sum(len(batch.images) for batch in together) == COUNT


def test_parquet_as_hugging_face_writes_it(tmp_path):
    rows = [{"bytes": encoded(i)[0], "path": f"{i}.png"} for i in range(5)] + [None]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows, "text": ["x"] * 6}), tmp_path / "s.parquet")
    images = open_images(tmp_path / "s.parquet")
    assert np.array_equal(images.read(4).numpy().transpose(1, 2, 0) * 255, encoded(4)[1])
    assert images.name(0) == "s.parquet[0]", "a row without a name leaves all to their numbers"
    with pytest.raises(UnreadableImage, match="no bytes"):
        images.read(5)


def test_parquet_names_that_are_not_all_different_are_not_used(tmp_path):
    images = open_images(write_parquet(tmp_path / "s.parquet", path=["same"] * COUNT))
    assert images.name(3) == "s.parquet[3]"


def test_parquet_columns_are_asked_for_by_name(tmp_path):
    left, right = [encoded(0)[0]] * 2, [encoded(1)[0]] * 2
    path = tmp_path / "s.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"left": left, "right": right}), path)
    with pytest.raises(ValueError, match="columns of bytes: left, right"):
        open_images(path)
    assert np.array_equal(open_images(f"{path}:right").read(0).numpy().transpose(1, 2, 0) * 255, encoded(1)[1])
    with pytest.raises(ValueError, match="column 'up' holds no encoded images"):
        open_images(f"{path}:up")


def test_a_damaged_group_of_rows_is_reported_row_by_row(tmp_path):
    path = write_parquet(tmp_path / "s.parquet", group=50)
    data = bytearray(path.read_bytes())
    at = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    at = at or pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[at : at + 200] = b"\xff" * 200
    path.write_bytes(data)
    images = open_images(path, preprocess=Preprocess(size=8, channels=3))
    assert sum(len(batch.images) for batch in images.batches(10)) == 100
    assert len(images.skipped) == 50
    assert "cannot be read" in images.skipped[0].reason
    (tmp_path / "t.parquet").write_bytes(data[:-10])
    with pytest.raises(ValueError, match="no Parquet file that can be read"):
        open_images(tmp_path / "t.parquet")


def test_a_folder_of_shards_is_one_set(tmp_path, members):
    (tmp_path / "set").mkdir()
    write_tar(tmp_path / "set" / "s10.tar", members[:3])
    write_tar(tmp_path / "set" / "s9.tar", members[3:5])
    write_parquet(tmp_path / "set" / "s11.parquet")
    for spec in (tmp_path / "set", f"{tmp_path}/set/s*"):
        images = open_images(str(spec))
        assert len(images) == 5 + COUNT
        assert images.name(0) == "s9.tar/00003.png"
        assert images.name(2) == "s10.tar/00000.png"
        assert images.name(5) == "s11.parquet[0]"
        assert np.array_equal(read_all(images)[:5], [encoded(i)[1] for i in (3, 4, 0, 1, 2)])

"""Sets of inspection lines as they are published: LOCO, VisA, Kolektor, and a table of one's own."""

import json

import numpy as np
import pytest
from PIL import Image

from dracones.images import Limits, open_images
from dracones.images.formats.layouts import images_to_test

SPOT = np.zeros((8, 8), np.uint8)
SPOT[2:4, 3:6] = 1


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def opened(category):
    return open_images(images_to_test(category, Limits())[0])


@pytest.fixture
def loco(tmp_path, pixels):
    """Two defects in one image, one in the other: a missing part, of which half is enough, and a scratch."""
    root = tmp_path / "breakfast_box"
    for i, place in enumerate(("train/good/000", "validation/good/000", "test/good/000")):
        save(root / f"{place}.png", pixels(i))
    for kind, values in (("logical_anomalies", (255, 254)), ("structural_anomalies", (254,))):
        save(root / "test" / kind / "000.png", pixels(7))
        for i, value in enumerate(values):
            save(root / "ground_truth" / kind / "000" / f"{i:03}.png", np.roll(SPOT, i, axis=0) * np.uint8(value))
    config = [
        {"defect_name": "no_almonds", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True},
        {"defect_name": "scratch", "pixel_value": 254, "saturation_threshold": 4, "relative_saturation": False},
    ]
    (root / "defects_config.json").write_text(json.dumps(config))
    return root


def test_loco_joins_masks_and_knows_what_saturates_each(loco):
    test = opened(loco)
    assert test.names == ["good/000.png", "logical_anomalies/000.png", "structural_anomalies/000.png"]
    assert np.array_equal(test.mask(1), (SPOT + np.roll(SPOT, 1, axis=0)) > 0)
    assert [list(map(float, (a.pixels.sum(), a.saturation))) for a in test.areas(1)] == [[6, 3], [6, 4]]
    assert np.array_equal(test.areas(1)[1].pixels, np.roll(SPOT, 1, axis=0) > 0)
    assert test.areas(0) == []
    assert test.without_masks().areas(1) is None
    assert open_images(f"{loco}:validation").labels.tolist() == [0]
    assert len(open_images(loco / "validation")) == 1
    assert len(open_images(f"{loco}:test/logical_anomalies").areas(0)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "defects_config.json cannot be read as JSON"),
        ('[{"pixel_value": 255}]', r"entry 0: expected defect_name, pixel_value, .* got \{'pixel_value': 255\}"),
        (
            '[{"defect_name": "a", "pixel_value": 1, "saturation_threshold": 2, "relative_saturation": true}]',
            r"a share in \(0, 1\] or a positive number of pixels, got 2 \(relative\)",
        ),
    ],
)
def test_a_broken_configuration_of_loco_is_named(loco, change, message):
    (loco / "defects_config.json").write_text(change)
    with pytest.raises(ValueError, match=message):
        opened(loco)


def test_a_mask_of_loco_with_a_value_that_nothing_explains(loco):
    save(loco / "ground_truth" / "logical_anomalies" / "000" / "000.png", SPOT * np.uint8(9))
    with pytest.raises(ValueError, match=r"000.png marks with 9; expected one of .* 254 \(scratch\), 255 \("):
        opened(loco).areas(1)
    save(loco / "ground_truth" / "logical_anomalies" / "000" / "000.png", SPOT * np.uint8(0))
    with pytest.raises(ValueError, match=r"000.png marks with nothing"):
        opened(loco).areas(1)


@pytest.fixture
def visa(tmp_path, pixels):
    """Two categories of VisA, one row of the split each image; masks of kinds 1 and 2."""
    root = tmp_path / "VisA"
    lines = ["object,split,label,image,mask"]
    for name in ("candle", "pcb1"):
        base = f"{name}/Data/Images"
        for i in range(4):
            save(root / base / "Normal" / f"{i:04}.JPG", pixels(i))
            lines.append(f"{name},{'train' if i < 3 else 'test'},normal,{base}/Normal/{i:04}.JPG,")
        for i in range(2):
            save(root / base / "Anomaly" / f"{i:03}.JPG", pixels(9 + i))
            save(root / name / "Data" / "Masks" / "Anomaly" / f"{i:03}.png", SPOT * np.uint8(i + 1))
            lines.append(f"{name},test,anomaly,{base}/Anomaly/{i:03}.JPG,{name}/Data/Masks/Anomaly/{i:03}.png")
    (root / "candle" / "image_anno.csv").write_text(
        "image,label,mask\ncandle/Data/Images/Normal/0000.JPG,normal,\n"
        'candle/Data/Images/Anomaly/000.JPG,"wax,burnt wick",candle/Data/Masks/Anomaly/000.png\n'
        "candle/Data/Images/Anomaly/001.JPG,wax,candle/Data/Masks/Anomaly/001.png\n"
    )
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    return root


def test_visa_by_its_split(visa):
    train, test = open_images(f"{visa / 'candle'}:train"), opened(visa / "candle")
    assert train.names == [f"Data/Images/Normal/{i:04}.JPG" for i in range(3)]
    assert test.labels.tolist() == [0, 1, 1]
    assert test.groups == ["good", "burnt wick+wax", "wax"]
    assert np.array_equal(test.mask(2), SPOT > 0)
    assert not test.mask(0).any()
    assert open_images(f"{visa / 'candle'}:test/wax").names == ["Data/Images/Anomaly/001.JPG"]
    assert opened(visa / "pcb1").groups == ["good", "anomaly", "anomaly"]


def test_what_is_wrong_with_visa_is_said(visa):
    with pytest.raises(ValueError, match=r"VisA holds categories; name one: candle, pcb1"):
        opened(visa)
    with pytest.raises(ValueError, match=r"holds categories, .* name one and its part: .*candle:train, .*pcb1:train"):
        open_images(visa)
    with pytest.raises(ValueError, match=r"candle has several parts; name one: .*candle:train, .*candle:test/wax"):
        open_images(visa / "candle")
    (visa / "candle" / "Data" / "Masks" / "Anomaly" / "001.png").unlink()
    source, (passed_over,) = images_to_test(visa / "candle", Limits())
    assert passed_over.name == "Data/Images/Anomaly/001.JPG"
    assert passed_over.name not in open_images(source).names
    assert "Masks/Anomaly/001.png is not there" in passed_over.reason
    (visa / "pcb1").rename(visa / "pcb9")
    with pytest.raises(ValueError, match="has no row of object 'pcb9'; its objects are candle, pcb1"):
        opened(visa / "pcb9")
    (visa / "split_csv" / "1cls.csv").unlink()
    with pytest.raises(ValueError, match=r"laid out like VisA, and its split .*1cls.csv is missing"):
        open_images(f"{visa / 'candle'}:train")
    assert len(open_images(visa / "candle" / "Data" / "Images" / "Normal")) == 4


def test_kolektors_second_set_learns_from_its_good_images(tmp_path, pixels):
    root = tmp_path / "KolektorSDD2"
    for i in range(8):
        split = "train" if i < 4 else "test"
        save(root / split / f"{i}.png", pixels(i))
        save(root / split / f"{i}_GT.png", SPOT * np.uint8(255 * (i % 4 == 3)))
    train, test = open_images(f"{root}:train"), opened(root)
    assert train.names == ["train/0.png", "train/1.png", "train/2.png"]
    assert test.names == ["test/4.png", "test/5.png", "test/6.png", "test/7.png"]
    assert test.labels.tolist() == [0, 0, 0, 1]
    assert test.mask(3).sum() == 6
    assert not test.mask(0).any()
    assert open_images(f"{root}:train/defective").names == ["train/3.png"]
    assert open_images(f"{root}:test/good").labels.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="has no part 'valid'"):
        open_images(f"{root}:valid")
    (root / "test" / "5_GT.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 4 images in .*test have no mask, e.g. 5.png no 5_GT"):
        opened(root)


def test_kolektors_first_set_splits_by_items(tmp_path, pixels):
    root = tmp_path / "KolektorSDD"
    for item in (1, 2, 3):
        for part in range(3):
            save(root / f"kos{item:02}" / f"Part{part}.jpg", pixels(10 * item + part))
            save(root / f"kos{item:02}" / f"Part{part}_label.bmp", SPOT * np.uint8(255 * (part == 2)))
    train, test = open_images(f"{root}:train"), opened(root)
    assert train.names == ["kos01/Part0.jpg", "kos01/Part1.jpg", "kos03/Part0.jpg", "kos03/Part1.jpg"]
    assert [name for name, odd in zip(test.names, test.labels, strict=True) if not odd] == [
        "kos02/Part0.jpg",
        "kos02/Part1.jpg",
    ]
    assert test.labels.sum() == 3
    assert test.groups.count("defective") == 3
    assert all(test.mask(int(i)).sum() == 6 for i in np.flatnonzero(test.labels))


@pytest.fixture
def table(tmp_path, pixels):
    """Six rows: three good to learn from, one good and two defective to test."""
    for i in range(4):
        save(tmp_path / "images" / f"g{i}.png", pixels(i))
    for i in range(2):
        save(tmp_path / "images" / f"b{i}.png", pixels(9 + i))
        save(tmp_path / "masks" / f"m{i}.png", SPOT)
    rows = [
        *((f"images/g{i}.png", "good", "", "train") for i in range(3)),
        ("images/g3.png", "good", "", "test"),
        ("images/b0.png", "dent", "masks/m0.png", "test"),
        ("images/b1.png", "scratch", "masks/m1.png", "test"),
    ]
    return tmp_path, ("path", "label", "mask", "split"), rows


def written(table, ending, *, separator=",", columns=None, rows=None):
    root, header, known = table
    header, known = columns or header, known if rows is None else rows
    path = root / f"parts{ending}"
    if ending == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        values = {name: [row[i] or None for row in known] for i, name in enumerate(header)}
        parquet.write_table(pyarrow.table(values), path)
    else:
        path.write_text("\n".join(separator.join(row) for row in (header, *known)) + "\n")
    return path


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".csv", ";"), (".tsv", "\t"), (".parquet", "")])
def test_a_table_is_a_source(table, ending, separator):
    path = written(table, ending, separator=separator)
    train, test = open_images(f"{path}:train"), opened(path)
    assert train.names == ["images/g0.png", "images/g1.png", "images/g2.png"]
    assert train.labels.tolist() == [0, 0, 0]
    assert test.names == ["images/g3.png", "images/b0.png", "images/b1.png"]
    assert test.labels.tolist() == [0, 1, 1]
    assert test.classes == ("normal", "anomalous")
    assert test.groups == ["good", "dent", "scratch"]
    assert np.array_equal(test.mask(1), SPOT > 0)
    assert not test.mask(0).any()
    assert open_images(f"{path}:test/dent").names == ["images/b0.png"]
    with pytest.raises(ValueError, match=r"has several splits; name one: .*:train, .*:train/good, .*:test, "):
        open_images(path)
    with pytest.raises(ValueError, match="has no part 'valid'; name one"):
        open_images(f"{path}:valid")


def test_a_table_may_say_less(table):
    _, _, rows = table
    paths = open_images(written(table, ".csv", columns=("image",), rows=[row[:1] for row in rows]))
    assert (len(paths), paths.labels, paths.has_masks) == (6, None, False)
    numbers = written(
        table, ".csv", columns=("file", "LABEL"), rows=[(row[0], str(int(row[1] != "good"))) for row in rows]
    )
    assert opened(numbers).labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert open_images(f"{numbers}:1").names == ["images/b0.png", "images/b1.png"]
    animals = [(row[0], "cat" if i % 2 else "dog") for i, row in enumerate(rows)]
    classes = written(table, ".csv", columns=("path", "class"), rows=animals)
    assert open_images(classes).classes == ("cat", "dog")
    assert open_images(classes).labels.tolist() == [1, 0] * 3
    with pytest.raises(ValueError, match="does not say which images are good: expected a column label with good"):
        opened(classes)


def test_paths_of_a_table_may_lead_elsewhere(table, tmp_path_factory):
    root, _, rows = table
    whole = [(str(root / row[0]), row[1]) for row in rows]
    path = tmp_path_factory.mktemp("lists") / "parts.csv"
    path.write_text("\n".join(["path,label", *(",".join(row) for row in whole)]))
    assert open_images(path).names == ["g0.png", "g1.png", "g2.png", "g3.png", "b0.png", "b1.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; its first line names the columns"),
        ("a,b\n1,2\n", r"has no column of paths; expected one called path \(or image, .* it has 'a', 'b'"),
        ("path,label\n", "has no rows below its header"),
        ("path,label\nimages/g0.png\n", "row 1: the header has 2 fields and the row another number"),
        ("path,label\n,good\n", "row 1: the column 'path' is empty"),
        ("path\nimages/g0.png\nimages/g0.png\n", "row 2: images/g0.png is row 1 already"),
        ("path\nimages/g8.png\nimages/g9.png\n", r"none of the 2 images is there, e.g. .*g8.png; paths are relative"),
        (
            "path,mask\nimages/g0.png,m0.png\nimages/g1.png,\n",
            r"none of the 1 masks is there, e.g. .*m0.png; paths are relative",
        ),
        ("path,label\nimages/g0.png,good\nimages/g1.png,\n", "1 of 2 rows have no label, e.g. .*g1.png; label all"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(table, text, message):
    path = table[0] / "parts.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        open_images(path)


def test_rows_whose_files_are_not_there_are_told_and_passed_over(table):
    """One file lost of many loses nothing else; with strict it stops there."""
    root, _, rows = table
    path = written(
        table, ".csv", columns=("path", "label"), rows=[*(row[:2] for row in rows), ("images/gone.png", "good")]
    )
    images = open_images(path)
    assert len(images) == len(rows) == len(images.labels)
    assert [(one.name, one.reason) for one in images.skipped] == [
        ("images/gone.png", "is not there, though the table names it")
    ]
    assert images.skipped[0].is_image
    with pytest.raises(ValueError, match=r"images/gone.png: is not there, though the table names it"):
        open_images(path, strict=True)
    (root / "images" / "g1.png").rename(root / "images" / "lost.png")
    assert [one.name for one in open_images(path).skipped] == ["images/g1.png", "images/gone.png"]


def test_a_parquet_of_images_stays_what_it_was(table):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root = table[0]
    data = [(root / "images" / f"g{i}.png").read_bytes() for i in range(2)]
    parquet.write_table(pyarrow.table({"path": ["a", "b"], "image": data}), root / "set.parquet")
    assert open_images(root / "set.parquet").names == ["a", "b"]


def test_a_folder_in_no_layout_says_what_was_expected(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"is in no layout that is known: expected train/good .* holds images"):
        opened(tmp_path)
    with pytest.raises(ValueError, match="no such folder or table"):
        opened(tmp_path / "nowhere")

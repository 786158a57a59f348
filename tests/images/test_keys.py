"""What images have in common by their name."""

import pytest

from dracones.images.keys import keys_of


def test_folders_patterns_tables_and_lists():
    names = ["a/b/1.png", "2.png", "cam7_x.png"]
    assert keys_of(names, "folder") == ["a/b", ".", "."]
    assert keys_of(names, r"cam(\d)") == [None, None, "7"]
    assert keys_of(names, r"\d") == ["1", "2", "7"]
    assert keys_of(names, {"2.png": "x"}) == [None, "x", None]
    assert keys_of(names, ["x", "y", "z"]) == ["x", "y", "z"]


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"groups='\(' is no regular expression"):
        keys_of(["1.png"], "(")
    with pytest.raises(ValueError, match=r"source='cam' is found in none of the 1 names, e\.g\. '1\.png'"):
        keys_of(["1.png"], "cam", "source")
    with pytest.raises(ValueError, match="expected one for each of 2 images, got 1"):
        keys_of(["1.png", "2.png"], ["x"])

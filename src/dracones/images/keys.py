"""What images have in common by their name: the folder they lie in, a part of their name, a column of a table."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

How = str | Mapping[str, str] | Sequence[str]


def keys_of(names: Sequence[str], how: How, what: str = "groups") -> list[str | None]:
    """The key of each image; ``None`` where its name gives none.

    Args:
        names: of the images, as a collection or a table of scores gives them.
        how: ``"folder"``: the folder that each lies in (``.`` for none); any other text: a regular expression, of which
            the first group (or, without one, all that it finds) is the key; a mapping from names to keys; or the keys
            themselves, one an image.
        what: the option that asks, for messages.

    Raises:
        ValueError: a pattern that is none or is found in no name, keys of another number than the images.

    >>> keys_of(["a/1.png", "2.png"], "folder"), keys_of(["cam1_7.png", "x.png"], "cam[0-9]")
    (['a', '.'], ['cam1', None])
    >>> keys_of(["1.png", "2.png"], {"1.png": "red"}), keys_of(["1.png"], ["red"])
    (['red', None], ['red'])
    """
    if isinstance(how, Mapping):
        return [None if (found := how.get(name)) is None else str(found) for name in names]
    if not isinstance(how, str):
        if len(how) != len(names):
            raise ValueError(f"{what}: expected one for each of {len(names)} images, got {len(how)}")
        return [str(key) for key in how]
    if how == "folder":
        return [PurePosixPath(name).parent.as_posix() for name in names]
    try:
        pattern = re.compile(how)
    except re.error as error:
        raise ValueError(f"{what}={how!r} is no regular expression ({error}), nor 'folder'") from None
    matches = [pattern.search(name) for name in names]
    if names and not any(matches):
        raise ValueError(
            f"{what}={how!r} is found in none of the {len(names)} names, e.g. {names[0]!r}; give 'folder', or a "
            "regular expression whose first group is what images of one group share"
        )
    return [None if found is None else found.group(1 if pattern.groups else 0) for found in matches]

"""Examples in docstrings are shown as code: Markdown would read `>>>` as a quotation and `a["b"]["c"]` as a link."""

import re
from typing import Any

import griffe

# An example: a line that begins with >>> and what follows it without an empty line.
EXAMPLE = re.compile(r"(?:^[ ]*>>> .*\n?(?:^[ ]*\S.*\n?)*)+", re.MULTILINE)


def fenced(text: str) -> str:
    """The text with each example in a fence of its own."""

    def fence(found: re.Match[str]) -> str:
        indent = " " * (len(found[0]) - len(found[0].lstrip(" ")))
        return f"\n{indent}```pycon\n{found[0].rstrip()}\n{indent}```\n"

    return EXAMPLE.sub(fence, text)


class Doctests(griffe.Extension):
    """Rewrites every docstring as it is collected."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Fence the examples of one object."""
        del kwargs
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)

"""Names of files as text that any table, terminal and encoding takes, and that leads back to the file."""

import re

_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def shown(name: str) -> str:
    r"""A file's name without what is no text: bytes that are not UTF-8, control characters, terminal escapes.

    They are written as ``\x..``, ``\u....`` (and a backslash as two); everything printable stays. `original` goes back.

    >>> shown("caf\udce9 \x1b[31m.png"), shown("größe.png")
    ('caf\\xe9 \\x1b[31m.png', 'größe.png')
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(_escaped(character) for character in name)


def original(text: str) -> str:
    r"""The file's name that `shown` wrote so.

    >>> original(shown("caf\udce9\\.png")) == "caf\udce9\\.png"
    True
    """

    def back(match: re.Match[str]) -> str:
        code = match[1]
        if code == "\\":
            return "\\"
        value = int(code[1:], 16)
        # Bytes that are not text lie among the surrogates, where Python puts them.
        return chr(0xDC00 + value) if code[0] == "x" and value >= 0x80 else chr(value)

    return _ESCAPE.sub(back, text)


def plain_text(text: str, longest: int = 300) -> str:
    r"""A message of somebody else's code on one line: printable, and no longer than a reader wants.

    >>> plain_text("bad\x1b[2Jtag\n" + "x" * 1000, longest=20)
    'bad\\x1b[2Jtag xxxxx...'
    """
    line = " ".join(text.split())
    line = line if line.isprintable() else "".join(_escaped(character) for character in line)
    return line if len(line) <= longest else line[:longest] + "..."


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    value = ord(character)
    if 0xDC80 <= value <= 0xDCFF:
        return f"\\x{value - 0xDC00:02x}"
    if value < 0x80:
        return f"\\x{value:02x}"
    return f"\\u{value:04x}" if value < 0x10000 else f"\\U{value:08x}"

"""Ways in which a model file can be damaged, edited or forged; each from a seed alone."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dracones.files import storage

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    7,
    0.5,
    100_000,
    10**9,
    2**31,
    2**62,
    1e-300,
    1e9,
    1e300,
    "",
    "x",
    "nan",
    "vit_giant_patch14_dinov2",
    "/etc/passwd",
    [],
    {},
    [3],
    [1] * 1000,
    [65_536, 65_536],
    {"a": {"b": [1]}},
    [[[[[[[[[[]]]]]]]]]],
)


def damaged(whole: bytes, random_: random.Random) -> tuple[str, bytes]:
    """Bytes as a bad disk, a bad copy or a careless editor leaves them."""
    kind = random_.choice(
        ("flip", "flips", "zeroed", "noise", "truncated", "appended", "moved", "header byte", "renamed", "duplicated")
    )
    data = bytearray(whole)
    length = int.from_bytes(whole[:8], "little")
    place = random_.randrange(len(data))
    if kind == "flip":
        data[place] ^= 1 << random_.randrange(8)
    elif kind == "flips":
        for _ in range(random_.randrange(2, 40)):
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    elif kind == "zeroed":
        end = min(len(data), place + random_.randrange(1, 4096))
        data[place:end] = bytes(end - place)
    elif kind == "noise":
        end = min(len(data), place + random_.randrange(1, 512))
        data[place:end] = random_.randbytes(end - place)
    elif kind == "truncated":
        del data[place:]
    elif kind == "appended":
        data += random_.randbytes(random_.randrange(1, 100))
    elif kind == "moved":
        other, size = random_.randrange(len(data)), random_.randrange(1, 256)
        data[place : place + size], data[other : other + size] = data[other : other + size], data[place : place + size]
    elif kind == "header byte":
        data[8 + random_.randrange(length)] = random_.randrange(256)
    else:
        text = whole[8 : 8 + length].decode()
        names = [name for name in json.loads(text) if name != "__metadata__"]
        first, second = random_.choice(names), random_.choice(names)
        new = f'"{first}"' if kind == "duplicated" else f'"{first}x"'
        text = text.replace(f'"{second if kind == "duplicated" else first}":', f"{new}:", 1).rstrip()
        encoded = (text + " " * (-len(text.encode()) % 8)).encode()
        data = bytearray(len(encoded).to_bytes(8, "little") + encoded + whole[8 + length :])
    return kind, bytes(data)


def edited(content: dict[str, Any], random_: random.Random) -> str:
    """Change one field of a file's header, in place; says which."""
    path, holder, key = random_.choice(list(_fields(content["header"])))
    where = ".".join(map(str, path))
    action = random_.choice(("set", "set", "set", "set", "drop", "add", "scale"))
    if action == "drop":
        del holder[key]
    elif action == "add" and isinstance(holder, dict):
        holder["unheard_of"] = random_.choice(HOSTILE)
    elif action == "scale" and type(holder[key]) in (int, float):
        holder[key] = holder[key] * random_.choice((2, -1, 1000)) + random_.choice((0, 1))
    else:
        holder[key] = random_.choice(HOSTILE)
        where += f" = {str(holder[key])[:40]}"
    return f"{action} {where}"


def forged(source: Path, target: Path, random_: random.Random) -> str:
    """A file whose digests were computed after the edit, as someone who means harm would; says what was done."""
    with storage.opened(source) as stored:
        tensors = stored.tensors()
        content = {"header": json.loads(json.dumps(stored.header)), "origin": json.loads(json.dumps(stored.origin))}
    if random_.random() < 0.8:
        done = edited(content, random_)
    else:
        name = random_.choice(sorted(tensors))
        action = random_.choice(("dropped", "renamed", "reshaped", "retyped", "shortened", "copied"))
        tensor = tensors[name] if action == "copied" else tensors.pop(name)
        if action in ("renamed", "copied"):
            tensors[name + "x"] = tensor.clone()
        elif action == "reshaped":
            tensors[name] = tensor.reshape(-1, *[1] * random_.randrange(3))
        elif action == "retyped":
            tensors[name] = tensor.double() if tensor.element_size() < 8 else tensor.float()
        elif action == "shortened":
            tensors[name] = tensor.flatten()[: tensor.numel() // 2].clone()
        done = f"{action} {name}"
    storage.write(target, content["header"], tensors, content["origin"])
    return done


def rewritten(whole: bytes, random_: random.Random) -> tuple[str, bytes]:
    """A header's text with what JSON or a parser chokes on: NaN, huge numbers, nesting, names given twice."""
    length = int.from_bytes(whole[:8], "little")
    outer = json.loads(whole[8 : 8 + length])
    text = outer["__metadata__"]["dracones"]
    kind = random_.choice(("NaN", "Infinity", "1e999", "9" * 400, "[" * 100_000 + "]" * 100_000, "twice", "format"))
    if kind == "twice":
        text = text.replace('"method":', '"method":"msp","method":', 1)
    elif kind == "format":
        text = text.replace('"format":2', f'"format":{random_.choice(("1", "3", "99", "-1", "null", "[]", "2.0"))}', 1)
    else:
        text = text.replace('"threshold":', f'"threshold":{kind},"was":', 1)
    outer["__metadata__"]["dracones"] = text
    encoded = json.dumps(outer, separators=(",", ":"), ensure_ascii=False)
    padded = (encoded + " " * (-len(encoded) % 8)).encode()
    return kind[:10], len(padded).to_bytes(8, "little") + padded + whole[8 + length :]


def _fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key), value, key
        yield from _fields(inner, (*path, key))

"""Things by name: the project's own, imported when first asked for, and those of other people's packages."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """One kind of thing by name: methods, densities, rules.

    A module enters a thing when it is imported; ``modules`` says which module that is, so that asking for one thing
    imports only what it needs. Another package adds its own by an entry point of ``group``, whose name is the thing's
    and whose target's module enters it:

    ```toml
    [project.entry-points."dracones.methods"]
    mine = "my_package.mine:Mine"
    ```

    Args:
        kind: what is registered, singular; for messages.
        modules: name to the full name of the module that enters it.
        group: of the entry points by which other packages add theirs.

    Example:
        >>> shapes = Registry[str]("shape", {})
        >>> shapes.enter("round", "circle")
        >>> shapes["round"], shapes.names()
        ('circle', ('round',))
        >>> shapes["rond"]
        Traceback (most recent call last):
            ...
        ValueError: unknown shape 'rond'; did you mean 'round'?
    """

    def __init__(self, kind: str, modules: Mapping[str, str], *, group: str = "") -> None:
        self.kind = kind
        self._group = group
        self._modules = dict(modules)
        self._entered: dict[str, T] = {}

    def enter(self, name: str, thing: T) -> None:
        """Make ``thing`` known under ``name``.

        Raises:
            ValueError: another thing holds the name.
        """
        known = self._entered.get(name)
        if known is not None and _identity(known) != _identity(thing):
            raise ValueError(f"{self.kind} name {name!r} is taken by {known!r}; choose another for {thing!r}")
        self._entered[name] = thing

    def names(self) -> tuple[str, ...]:
        """All names, in alphabetical order, without importing anything."""
        return tuple(sorted({*self._modules, *self._foreign, *self._entered}))

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._foreign or name in self._entered

    def __getitem__(self, name: str) -> T:
        if name not in self._entered:
            self._import(name)
        return self._entered[name]

    def _import(self, name: str) -> None:
        if name in self._modules:
            import_module(self._modules[name])
        elif name in self._foreign:
            self._foreign[name].load()
        else:
            raise ValueError(f"unknown {self.kind} {name!r}; {self._nearest(name)}")
        if name not in self._entered:
            where = self._modules.get(name) or self._foreign[name].value
            raise ValueError(f"{where} was imported for the {self.kind} {name!r} and did not enter it under that name")

    def _nearest(self, name: str) -> str:
        near = get_close_matches(name, self.names(), n=3, cutoff=0.4)
        return f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(self.names())}"

    @cached_property
    def _foreign(self) -> dict[str, EntryPoint]:
        found = entry_points(group=self._group) if self._group else ()
        return {entry.name: entry for entry in found if entry.name not in self._modules}


def _identity(thing: object) -> object:
    """A class made again by a reload is the same thing."""
    return (thing.__module__, thing.__qualname__) if isinstance(thing, type | Callable) else thing  # type: ignore[attr-defined]

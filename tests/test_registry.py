"""Things by name: what is known without an import, what other packages add, and what is refused."""

import sys
from importlib.metadata import EntryPoint

import pytest

from dracones import registry
from dracones.registry import Registry


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A package that adds a shape of its own, and one that promises and does not."""
    (tmp_path / "shapes_of_others.py").write_text("import shape_registry; shape_registry.SHAPES.enter('oval', 1)\n")
    (tmp_path / "empty_promise.py").write_text("nothing = None\n")
    (tmp_path / "shape_registry.py").write_text(
        "from dracones.registry import Registry\nSHAPES = Registry('shape', {}, group='tests.shapes')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entries = [
        EntryPoint("oval", "shapes_of_others", "tests.shapes"),
        EntryPoint("flat", "empty_promise", "tests.shapes"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == "tests.shapes" else [])
    import shape_registry

    yield shape_registry.SHAPES
    for name in ("shape_registry", "shapes_of_others", "empty_promise"):
        sys.modules.pop(name, None)


def test_another_packages_thing_is_known_by_name_and_imported_when_asked_for(foreign):
    assert foreign.names() == ("flat", "oval")
    assert "oval" in foreign
    assert "shapes_of_others" not in sys.modules
    assert foreign["oval"] == 1


def test_an_entry_point_that_enters_nothing_is_named(foreign):
    with pytest.raises(ValueError, match="empty_promise was imported for the shape 'flat' and did not enter it"):
        foreign["flat"]


def test_a_name_is_given_once():
    shapes = Registry("shape", {})
    shapes.enter("round", 1)
    shapes.enter("round", 1)
    with pytest.raises(ValueError, match="shape name 'round' is taken"):
        shapes.enter("round", 2)


@pytest.mark.parametrize(("kind", "group"), [("METHODS", "methods"), ("DENSITIES", "densities"), ("RULES", "rules")])
def test_other_packages_can_add_each_kind(kind, group):
    from dracones.densities.registry import DENSITIES
    from dracones.methods.registry import METHODS
    from dracones.rules.rule import RULES

    found = {"METHODS": METHODS, "DENSITIES": DENSITIES, "RULES": RULES}[kind]
    assert found._group == f"dracones.{group}"

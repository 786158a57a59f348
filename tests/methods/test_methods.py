"""Claims of the method records, checked for every method that can be created."""

from pathlib import Path

import pytest

from dracones.methods import method_class, method_names
from dracones.methods.registry import methods_table


@pytest.mark.parametrize("name", method_names())
def test_record_is_complete(name):
    info = method_class(name).info
    assert info.name == name
    assert info.summary
    assert info.citation.endswith(info.url)
    assert "score" in info.gives


@pytest.mark.parametrize("name", method_names())
def test_options_have_descriptions_and_defaults(name):
    config = method_class(name).Config
    for option, field in config.model_fields.items():
        assert field.description, f"{name}: option {option} has no description"
        assert not field.is_required(), f"{name}: option {option} has no default"


def test_the_page_of_methods_is_what_the_records_say():
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    assert methods_table() in page, (
        "docs/methods.md is out of date; put dracones.methods.registry.methods_table() in its place"
    )

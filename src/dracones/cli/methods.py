"""`dracones methods`: what can be created, and the options of each."""

from typing import Annotated, Any

import typer
from pydantic import BaseModel

from dracones.cli.options import AsJson
from dracones.cli.output import emit, table


def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's options.")] = None, as_json: AsJson = False
) -> None:
    """List the methods, or the options of one, with paper and what each gives."""
    if name is None:
        _list(as_json)
    else:
        _describe(name, as_json)


def _list(as_json: bool) -> None:
    from dracones.methods import methods as known

    infos = known()
    if as_json:
        emit({"methods": [_record(info) for info in infos]})
        return
    from dracones.export.claims import exports_to

    rows = [
        [info.name, info.family, info.summary, ", ".join(info.gives), exports_to(info.name), _paper(info)]
        for info in infos
    ]
    table(
        "Methods: `dracones methods NAME` shows options",
        ["name", "family", "idea", "gives", "exports to", "paper"],
        rows,
    )


def _describe(name: str, as_json: bool) -> None:
    from dracones.methods import method_class

    detector = method_class(name)
    options = _options(detector.Config, detector.Config.from_options())
    presets = _presets(detector.Config)
    if as_json:
        emit({**_record(detector.info), "options": options, "presets": presets})
        return
    rows = [[o["name"], o["type"], str(o["default"]), o["description"]] for o in options]
    table(f"{detector.info.citation}", ["option (--set name=value)", "type", "default", "meaning"], rows)
    if presets:
        names = list(dict.fromkeys(option for values in presets.values() for option in values))
        table(
            "What --set preset=... stands for, where an option is not given itself",
            ["option", *presets],
            [[option, *[str(values[option]) for values in presets.values()]] for option in names],
        )


def _presets(config: Any) -> dict[str, dict[str, Any]]:
    """Preset → the values of all options in which the presets of a method differ."""
    named = getattr(config, "presets", {})
    flat = {
        preset: {o["name"]: o["default"] for o in _options(config, config.from_options(preset=preset))}
        for preset in named
    }
    differ = [name for name in next(iter(flat.values()), {}) if len({str(of[name]) for of in flat.values()}) > 1]
    return {preset: {name: of[name] for name in differ if name != "preset"} for preset, of in flat.items()}


def _options(config: type[BaseModel], held: BaseModel | None = None, prefix: str = "") -> list[dict[str, Any]]:
    """Flat list of a configuration's fields with the values ``held`` by default; nested ones by dotted names."""
    options = []
    for name, field in config.model_fields.items():
        default = getattr(held, name) if held is not None else field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            options += _options(type(default), default, f"{prefix}{name}.")
            continue
        kind = field.annotation.__name__ if isinstance(field.annotation, type) else str(field.annotation)
        options.append(
            {
                "name": prefix + name,
                "type": kind.replace("typing.", ""),
                "default": default,
                "description": field.description or "",
            }
        )
    return options


def _paper(info: Any) -> str:
    first = info.authors[0] + (" et al." if len(info.authors) > 2 else "")
    return f"{first} {info.year}, {info.url}"


def _record(info: Any) -> dict[str, Any]:
    from dracones.export.claims import exports_to

    return {
        "name": info.name,
        "title": info.title,
        "authors": list(info.authors),
        "year": info.year,
        "url": info.url,
        "family": info.family,
        "needs": list(info.needs),
        "gives": list(info.gives),
        "exports_to": exports_to(info.name),
        "summary": info.summary,
    }

"""Every documented option changes something or is refused: none may be accepted and then forgotten."""

import ast
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch import nn

import dracones
from dracones.cli.main import app
from dracones.images import Limits, Preprocess, open_images
from dracones.methods import MethodConfig, method_class, method_names
from dracones.training import TrainingConfig, train

SOURCE = Path(dracones.__file__).parent


# Whatever the option: somebody reads it ----------------------------------------------------------------------------


def names_read(*paths: Path) -> set[str]:
    """Attributes that some code reads, and texts by which it may (``getattr(config, name) for name in (...)``)."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def files_of(kind: type) -> set[Path]:
    return {
        Path(sys.modules[each.__module__].__file__) for each in kind.__mro__ if each.__module__.startswith("dracones")
    }


@pytest.mark.parametrize("name", method_names())
def test_a_methods_own_options_are_read_where_it_is_written(name):
    kind = method_class(name)
    # Beside the method's file stand the parts of its idea; a whole room would let one method answer for another.
    files = files_of(kind) | files_of(kind.Config)
    if kind.info.family == "classifier":
        files |= set((SOURCE / "methods" / "guards").glob("*.py")) - {
            Path(sys.modules[method_class(other).__module__].__file__)
            for other in method_names()
            if other != name and method_class(other).__module__ != kind.__module__
        }
    files |= {SOURCE / "methods" / "build.py"} & set((SOURCE / "methods").glob("*.py"))
    lost = set(kind.Config.model_fields) - set(MethodConfig.model_fields) - names_read(*files)
    assert not lost, f"{name} never reads its options {sorted(lost)}"


@pytest.mark.parametrize("kind", [MethodConfig, TrainingConfig, Preprocess, Limits])
def test_shared_options_are_read_outside_their_own_file(kind):
    own = Path(sys.modules[kind.__module__].__file__)
    rooms = {MethodConfig: ("detectors", "methods"), TrainingConfig: ("training",)}.get(kind, ("images",))
    files = [path for room in rooms for path in (SOURCE / room).rglob("*.py") if path != own or room == "images"]
    fields = getattr(kind, "model_fields", None) or kind.__dataclass_fields__
    assert not set(fields) - names_read(*files)


def verbs():
    group = typer.main.get_command(app)
    return [(name, command.callback) for name, command in group.commands.items()]


@pytest.mark.parametrize(("name", "verb"), verbs(), ids=lambda each: each if isinstance(each, str) else "")
def test_every_option_of_a_verb_is_read(name, verb):
    function = inspect.unwrap(verb)
    tree = ast.parse(inspect.getsource(function).lstrip())
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    # --json is read by the entry point too, which prints errors as JSON.
    assert not set(inspect.signature(function).parameters) - read


# Training: every field of the configuration shows in what a run does ------------------------------------------------

ONE = {"max_steps": 6, "batch_size": 8, "device": "cpu"}
# field -> (options under which it matters, its value on one side, on the other)
TRAINING = {
    "epochs": ({"max_steps": None}, 1, 2),
    "max_steps": ({}, 6, 3),
    "max_seconds": ({}, None, 1e-9),
    "batch_size": ({}, 8, 4),
    "drop_last": ({"epochs": 1, "max_steps": None}, True, False),
    "optimizer": ({}, "adam", "sgd"),
    "learning_rate": ({}, 1e-3, 1e-2),
    "weight_decay": ({}, 0.0, 0.5),
    "betas": ({}, (0.9, 0.999), (0.1, 0.2)),
    "momentum": ({"optimizer": "sgd"}, 0.0, 0.9),
    "smoothing": ({"optimizer": "rmsprop"}, 0.99, 0.5),
    "epsilon": ({}, 1e-8, 1.0),
    "schedule": ({}, "constant", "cosine"),
    "milestones": ({"schedule": "step"}, (0.2,), (0.9,)),
    "decay": ({"schedule": "step"}, 0.5, 0.1),
    "final_fraction": ({"schedule": "cosine"}, 0.0, 0.9),
    "warmup": ({}, 0.0, 0.5),
    "warmup_start": ({"warmup": 0.5}, 0.0, 0.9),
    "clip_norm": ({"optimizer": "sgd"}, None, 1e-3),
    "precision": ({}, "fp32", "bf16"),
    "average": ({}, None, 0.9),
    "max_nonfinite": ({"learning_rate": 1e38, "optimizer": "sgd", "max_steps": 40}, 3, 5),
    "validate_steps": ({}, None, 1),
    "patience": ({"learning_rate": 1e-12, "validate_steps": 1, "min_improvement": 0.1}, None, 1),
    "min_improvement": ({"patience": 1, "validate_steps": 1}, 0.0, 1e6),
    "validate_start": ({"learning_rate": 50.0, "validate_steps": 1}, False, True),
    "restore_best": ({"learning_rate": 50.0, "validate_steps": 1}, True, False),
    "seed": ({}, 0, 1),
    "device": ({}, "cpu", "cuda:77"),
    "threads": ({}, None, torch.get_num_threads() + 1),
    "workers": ({}, 0, 1),
    "checkpoint_seconds": ({}, 1e6, 0.0),
    "checkpoint_steps": ({"checkpoint_seconds": 1e6}, None, 1),
}


class Line(nn.Module):
    """A line, and what a run shows of itself while it is learnt."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 0.5))
        self.seen = set()

    def training_loss(self, batch, *, generator=None):
        (values,) = batch
        self.seen.add((torch.get_num_threads(), int(values[0, 3])))
        noise = torch.rand(3, generator=generator)
        return (values[:, :3] @ (self.weight + noise) - 4).square().mean()


class Numbers(torch.utils.data.Dataset):
    """Twenty rows; the last column says whether another process read it."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        read_elsewhere = torch.utils.data.get_worker_info() is not None
        return (torch.tensor([index / 20, index % 3, 1.0, float(read_elsewhere)]),)


def what_a_run_shows(options, folder):
    line, saves = Line(), []
    checkpoint = folder / "run.checkpoint"
    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules["dracones.training.checkpoint"]
        plain = module.replacing
        patch.setattr(module, "replacing", lambda path: saves.append(path) or plain(path))
        try:
            report = train(
                line, Numbers(), TrainingConfig(**{**ONE, **options}), validation=Numbers(), checkpoint=checkpoint
            )
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            checkpoint.unlink(missing_ok=True)
    return line.weight.tolist(), report.steps, len(report.history), len(saves), sorted(line.seen)


def test_the_table_names_every_field():
    assert set(TRAINING) == set(TrainingConfig.model_fields)


@pytest.mark.parametrize("field", TRAINING)
def test_a_field_of_the_training_shows(field, tmp_path):
    around, one, other = TRAINING[field]
    seen = [what_a_run_shows({**around, field: value}, tmp_path) for value in (one, one, other)]
    assert seen[0] == seen[1], "the same options do the same"
    assert seen[0] != seen[2]


@pytest.mark.parametrize(("option", "value", "advice"), [("seed", 3, "give seed="), ("device", "cpu", "fit\\(device=")])
def test_what_a_fit_decides_for_its_training_is_refused_there(option, value, advice):
    with pytest.raises(ValueError, match=rf"training\.{option}.*would change nothing.*{advice}"):
        dracones.create("glow", training={option: value})
    if option == "device":
        with pytest.raises(ValueError, match="unknown option 'device'"):
            dracones.create("glow", device="cpu")
    dracones.create("glow", training=TrainingConfig(epochs=2)), "as a saved configuration names every field"


# What every method can be told ------------------------------------------------------------------------------------

FAST = {"rule": "typicality", "epochs": 1, "density": {"steps": 1, "hidden": 4}}
COMMON = {
    "size": ({}, None, (8, 8)),
    "channels": ({}, None, 1),
    "fit": ({"size": (8, 8)}, "stretch", "cover"),
    "crop": ({}, None, (8, 8)),
    "interpolation": ({"size": (8, 8)}, "bilinear", "nearest"),
    "tile": ({}, None, (8, 8)),
    "tile_overlap": ({"tile": (8, 8)}, 0, 4),
    "seed": ({}, 0, 1),
    "validation_share": ({}, 0.1, 0.3),
    "calibration_share": ({}, 0.1, 0.3),
    "group_by": ({}, None, r"^[^\[]*\[(\d)"),
    "false_alarm_rate": ({"calibration_share": 0.3}, 0.1, 0.2),
}


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (40, 12, 16, 3), dtype=np.uint8)


def what_a_detector_shows(pictures, options):
    detector = dracones.create("glow", **FAST, **options).fit(pictures)
    seen = detector.predict(pictures[:2])
    return seen.scores.tolist(), detector.threshold, detector.provenance["images"], detector.provenance["met"]


def test_the_table_of_common_options_names_every_field():
    assert set(COMMON) == set(MethodConfig.model_fields)


@pytest.mark.parametrize("field", COMMON)
def test_a_common_option_shows(field, pictures):
    around, one, other = COMMON[field]
    seen = [what_a_detector_shows(pictures, {**around, field: value}) for value in (one, other)]
    assert seen[0] != seen[1]


def test_the_images_own_treatment_counts_in_fit_and_predict(pictures):
    small = Preprocess(size=(8, 8), channels=1)
    detector = dracones.create("glow", **FAST).fit(open_images(pictures, preprocess=small))
    assert detector.image_shape == (1, 8, 8)
    assert len(detector.predict(open_images(pictures[:2], preprocess=detector.preprocess))) == 2
    with pytest.raises(ValueError, match="was opened with"):
        detector.predict(open_images(pictures[:2], preprocess=Preprocess(size=(4, 4))))
    with pytest.raises(ValueError, match="give one of the two"):
        dracones.create("glow", size=(16, 16), **FAST).fit(open_images(pictures, preprocess=small))

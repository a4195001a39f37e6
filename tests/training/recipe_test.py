"""Recipes: options in JSON files, which flags override."""

import dataclasses
import json

import pytest
from absl import flags

from experiments.pretrain import film_finder, pretrain, pretrain_grade, pretrain_masks
from restoration import train
from restoration.base import cli, errors
from restoration.training import recipe


def parse(arguments, options_class=train.TrainOptions):
    values = flags.FlagValues()
    cli.define_flags(options_class, values)
    return cli.parse(["command", *arguments], options_class, values)


def write(path, **content):
    path.write_text(json.dumps(content))
    return path


def test_flags_override_a_recipe_and_a_recipe_the_defaults():
    given = ["--clean=C", "--workdir=W", "--recipe=film"]
    options = parse(given)
    assert options.model == "nafnet_s" and options.loss == "psnr"
    assert (options.seed, options.severity) == (0, 2.0)
    # Also with the value that is the default without a recipe.
    options = parse([*given, "--loss=mse", "--model=basic", "--steps=7"])
    assert (options.loss, options.model, options.steps) == ("mse", "basic", 7)
    assert options.optimizer == "adamw"


def test_a_recipe_adds_to_its_base(tmp_path):
    write(tmp_path / "first.json", base="film", options={"steps": 5, "seed": 3})
    path = write(tmp_path / "second.json", base="first", options={"seed": 4})
    options = parse(["--clean=C", "--workdir=W", f"--recipe={path}"])
    assert (options.model, options.steps, options.seed) == ("nafnet_s", 5, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[1]", 'has no "options"'),
        ('{"options": {"step": 3}}', "there is no option --step"),
        ('{"options": {"steps": "3"}}', "steps is '3', not of type int"),
        ('{"options": {}, "option": {}}', "unknown 'option'"),
        ('{"options": {"steps": -3}}', "--steps=-3: must be from 0 to"),
        ('{"options": {}, "base": "none"}', "--recipe=none: choose "),
        ('{"options": {}, "base": "a.json"}', "its bases name each other"),
    ],
)
def test_bad_recipes_are_told(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(errors.InputError) as error:
        parse(["--clean=C", "--workdir=W", "--recipe=a.json"])
    assert message in str(error.value)


def test_a_missing_recipe_names_those_that_are_there():
    with pytest.raises(errors.InputError, match="--recipe=flim: choose film"):
        parse(["--clean=C", "--workdir=W", "--recipe=flim"])


@pytest.mark.parametrize("name", recipe.names(pretrain.RECIPES))
def test_every_committed_recipe_can_be_run(name):
    given = ["--clean=C", "--workdir=W", f"--recipe={name}"]
    if name == "grade":
        options = parse([*given, "--out=o"], pretrain_grade.GradeOptions)
    elif name == "film_finder":
        given += ["--films=F", "--overlays=O"]
        options = parse(given, film_finder.FinderOptions)
    elif name.startswith(("finder", "filler")):
        options = parse([*given, "--overlays=O"], pretrain_masks.Options)
        assert options.model == name.split("_")[0]
    else:
        options = parse(given, pretrain.PretrainOptions)
        pretrain.train_options(options)
    assert options.steps and options.schedule == "cosine"
    assert options.workdir == "W"


def test_rounds_say_what_their_commands_said():
    """The seventh: the options of its card, from four recipes on top of each other."""
    options = dataclasses.asdict(
        parse(["--clean=C", "--recipe=nafnet_s_07"], pretrain.PretrainOptions)
    )
    expected = {
        "steps": 13700, "batch_size": 32, "image_size": 256, "learning_rate": 1.5e-3,
        "warmup_steps": 300, "clip_norm": 1.0, "ema_decay": 0.999, "seed": 6,
        "overlay_share": 0.7, "spotless_share": 0.3, "grey_share": 0.15,
        "toned_share": 0.0, "soft_share": 0.0, "writing_share": 0.1,
        "workdir": "build/nafnet_s_07", "bfloat16": True,
        "start": "build/nafnet_s_06/nafnet_s.safetensors",
    }  # fmt: skip
    assert {name: options[name] for name in expected} == expected


def test_data_of_both_kinds_are_refused():
    with pytest.raises(errors.InputError, match="--clean: not together with"):
        parse(["--clean=C", "--data_dir=D", "--workdir=W"])
    with pytest.raises(errors.InputError, match="--severity: only together with --cle"):
        parse(["--severity=1", "--data_dir=D", "--workdir=W"])
    with pytest.raises(errors.InputError, match="--data_dir is required"):
        parse(["--workdir=W"])
    with pytest.raises(errors.InputError, match=r"--weight_decay=0\.1: adam has none"):
        parse(["--data_dir=D", "--workdir=W", "--weight_decay=0.1"])

"""Command lines, options and their JSON form."""

import dataclasses
import json

import pytest
from absl import flags

from restoration.base import cli, config, errors
from restoration.training import train_config


@dataclasses.dataclass(frozen=True)
class Options:
    input: tuple[str, ...] = config.option(help="inputs", short="i", positional=True)
    size: int = config.option(3, help="a size", minimum=1, formerly="length")
    rate: float = config.option(0.5, help="a rate", minimum=0.0, maximum=1.0)
    fast: bool = config.option(False, help="a switch")
    kind: str = config.option("a", help="a kind", choices=("a", "b"))

    def __post_init__(self):
        config.check(self)


def parse(*arguments):
    values = flags.FlagValues()
    cli.define_flags(Options, values)
    values.set_gnu_getopt(True)
    return cli.parse(["program", *arguments], Options, values)


def test_flags_and_remaining_arguments():
    options = parse("-i", "x", "y", "--size=5", "z", "--fast")
    assert options == Options(input=("x", "y", "z"), size=5, fast=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "-i is required"),
        (("-i", "x", "--size=0"), "--size=0: must be at least 1"),
        (("-i", "x", "--length=4"), "--length is now named --size"),
        (("-i", "x", "--size=big"), "size"),
        (("-i", "x", "--rate=nan"), "must be from 0.0 to 1.0"),
        (("-i", "x", "--kind=c"), "choose one of a, b"),
        (("-i", "x", "--sise=4"), "sise"),
    ],
)
def test_bad_flags_are_one_line(arguments, message):
    with pytest.raises(errors.InputError, match=message) as error:
        parse(*arguments)
    assert "\n" not in str(error.value)


def test_json_round_trip():
    options = train_config.TrainConfig(
        data_dir="d", workdir="w", learning_rate=1, epochs=3
    )
    back = config.from_json(
        config.to_json(options), train_config.TrainConfig, source="x"
    )
    assert back == options


def test_runs_of_before_an_option_had_its_default():
    options = train_config.TrainConfig(data_dir="d", workdir="w", seed=3)
    before = json.loads(config.to_json(options))
    del before["optimizer"]
    text = json.dumps(before)
    assert config.from_json(text, train_config.TrainConfig, source="x") == options
    assert config.differences(before, options) == []
    muon = dataclasses.replace(options, optimizer="muon")
    assert config.differences(before, muon) == ["optimizer adam -> muon"]


def test_bad_json_is_told():
    good = json.loads(
        config.to_json(train_config.TrainConfig(data_dir="d", workdir="w"))
    )
    bad = {
        "not JSON": "{",
        "not a JSON object": "[1]",
        r"unknown fields \['extra'\]": json.dumps(good | {"extra": 1}),
        r"missing fields \['seed'\]": json.dumps(
            {k: v for k, v in good.items() if k != "seed"}
        ),
        "seed is 'x', not of type int": json.dumps(good | {"seed": "x"}),
        "epochs is True, not of type int": json.dumps(good | {"epochs": True}),
        "--fraction=-1: must be": json.dumps(good | {"fraction": -1}),
    }
    for message, text in bad.items():
        with pytest.raises(errors.InputError, match=message):
            config.from_json(text, train_config.TrainConfig, source="config.json")

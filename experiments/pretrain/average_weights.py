"""Averages the weights of two runs of one lineage, number by number.

    python -m experiments.pretrain.average_weights --first EARLIER --second LATER

A run that learned something new from the weights of an earlier one, and lost some of
its care for it, is drawn back half of the way (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models"). The card is that of the later run and names both; its
figures are left to `experiments.pretrain.quality --cards`.
"""

import dataclasses
import pathlib

import numpy as np
from etils import epy

from restoration.base import cli, config, errors

with epy.lazy_imports():
    import optax

    from restoration.models import pretrained

# Entries of a card about the weights themselves, which are others here.
_OF_THE_WEIGHTS = ("model", "command", "figures", "stored as", "sha256")


@dataclasses.dataclass(frozen=True)
class AverageOptions:
    """Options of `python -m experiments.pretrain.average_weights`."""

    first: str = config.option("", help="weights with a card: the earlier run")
    second: str = config.option("", help="weights with a card: the later run")
    share: float = config.option(
        0.5, help="share of the second", minimum=0.0, maximum=1.0
    )
    out: str = config.option(
        "average/nafnet_s.safetensors", help="weights file to write", short="o"
    )

    def __post_init__(self):
        """Checks choices."""
        config.check(self)
        if not (self.first and self.second):
            raise errors.InputError("--first and --second are required")


def write(options: AverageOptions) -> pathlib.Path:
    """Writes the average, float16, and its card.

    Returns:
      The weights file.

    Raises:
      InputError: for weights without a card or of two models, and for an `out` that is
        there.
    """
    paths = [pathlib.Path(path) for path in (options.first, options.second)]
    (model, first), (other, second) = (pretrained.load(path) for path in paths)
    cards = [pretrained.read_card(path.with_suffix(".json")) for path in paths]
    if model != other:
        raise errors.InputError(f"{paths[1]}: weights of {other}, not of {model}")
    out = pathlib.Path(options.out)
    if out.exists():
        raise errors.InputError(f"{out}: is there already; give another --out")
    shares = (1 - options.share, options.share)
    card = {
        **{n: value for n, value in cards[1].items() if n not in _OF_THE_WEIGHTS},
        "average of": [
            {"share": share, "command": card.get("command"), "sha256": card["sha256"]}
            for share, card in zip(shares, cards, strict=True)
        ],
        "command": "python -m experiments.pretrain.average_weights "
        f"--first={paths[0].name} --second={paths[1].name} --share={options.share}",
        "figures": {},
        "stored as": {"dtype": "float16"},
    }
    parameters = optax.incremental_update(second, first, options.share)
    pretrained.save(out, model, parameters, card, dtype=np.float16)
    return out


def main(options: AverageOptions) -> None:
    """Entry point: writes the average and prints where it is."""
    print(write(options))


if __name__ == "__main__":
    cli.run(main, AverageOptions)

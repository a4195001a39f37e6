"""Joins the weights of two networks into those of a cascade.

    python -m experiments.join_cascade --coarse SMALL --fine NAFNET

The coarse network comes from `experiments.pretrain --shrink 4`, the fine one is any
`nafnet_s`. The card has theirs; its figures are left to `experiments.quality --cards`.
"""

import dataclasses
import pathlib

import numpy as np
from etils import epy

from restoration import cli, config, errors

with epy.lazy_imports():
    from restoration import pretrained
    from restoration.models import cascade

MODEL, PART = "cascade_s", "nafnet_s"

# What a card tells of one network's own file.
_OF_THE_FILE = ("model", "figures", "stored as")


@dataclasses.dataclass(frozen=True)
class JoinOptions:
    """Options of `python -m experiments.join_cascade`."""

    coarse: str = config.option("", help="weights with a card: the coarse network")
    fine: str = config.option("", help="weights with a card: the fine network")
    limits: str = config.option("", help="what the card tells of limits")
    out: str = config.option(
        f"cascade/{MODEL}.safetensors", help="weights file to write", short="o"
    )

    def __post_init__(self):
        """Checks choices."""
        config.check(self)
        if not (self.coarse and self.fine):
            raise errors.InputError("--coarse and --fine are required")


def write(options: JoinOptions) -> pathlib.Path:
    """Writes the weights, float16, and their card.

    Returns:
      The weights file.

    Raises:
      InputError: for weights without a card or of another model, and for an `out` that
        is there.
    """
    parameters, cards = {}, {}
    for name in cascade.PARTS:
        path = pathlib.Path(getattr(options, name))
        model, weights = pretrained.load(path)
        if model != PART:
            raise errors.InputError(f"{path}: weights of {model}, not of {PART}")
        card = pretrained.read_card(path.with_suffix(".json"))
        cards[name] = {n: card[n] for n in card if n not in _OF_THE_FILE}
        parameters[name] = weights["params"]
    out = pathlib.Path(options.out)
    if out.exists():
        raise errors.InputError(f"{out}: is there already; give another --out")
    given = (
        f"--{name}={pathlib.Path(getattr(options, name)).name}"
        for name in cascade.PARTS
    )
    card = {
        "networks": cards,
        "command": " ".join(["python -m experiments.join_cascade", *given]),
        "figures": {},
        "stored as": {"dtype": "float16"},
        "limits": options.limits or cards["fine"].get("limits", ""),
    }
    pretrained.save(out, MODEL, {"params": parameters}, card, dtype=np.float16)
    return out


def main(options: JoinOptions) -> None:
    """Entry point: writes the weights and prints where they are."""
    print(write(options))


if __name__ == "__main__":
    cli.run(main, JoinOptions)

"""Trains the weights that the package ships; see `pretrain.py`."""

from experiments.pretrain import pretrain
from restoration.base import cli

if __name__ == "__main__":
    cli.run(pretrain.main, pretrain.PretrainOptions)

"""Measures what other networks' weights bring; see `transfer.py`."""

from experiments.transfer import transfer
from restoration.base import cli

if __name__ == "__main__":
    cli.run(transfer.main, transfer.TransferOptions)

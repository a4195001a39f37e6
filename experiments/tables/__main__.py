"""Trains the report's tables again; see `tables.py`."""

from experiments.tables import tables
from restoration.base import cli

if __name__ == "__main__":
    cli.run(tables.main, tables.TablesOptions)

"""Measures speed and memory; see `benchmark.py`."""

from experiments.benchmark import benchmark
from restoration.base import cli

if __name__ == "__main__":
    cli.run(benchmark.main, benchmark.BenchmarkOptions)

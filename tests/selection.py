"""Which of a test's cases `make test` runs; `make test-all` runs all of them."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(kept: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """Returns cases for `pytest.mark.parametrize`, all marked slow but those kept."""
    kept = list(kept)
    return [
        case if case in kept else pytest.param(case, marks=pytest.mark.slow)
        for case in cases
    ]

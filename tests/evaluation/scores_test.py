import math

import numpy as np
import pytest

from restoration.base import errors
from restoration.evaluation import metrics, scores

# Names that a naive CSV writer gets wrong.
NAMES = ("reel/film_0001", 'a, "b"', "mønster-№7-写真", "two\nlines")


def _score(name, psnr):
    return scores.Score(
        name,
        {"mse": 0.01, "psnr": 20.0, "ssim": 0.5},
        {"mse": 0.005, "psnr": psnr, "ssim": 0.75},
    )


def test_columns_are_the_computed_metrics():
    image = np.zeros((1, 16, 16, 3), np.float32)
    assert tuple(metrics.all_metrics(image, image)) == scores.METRICS


def test_table_round_trip():
    written = [_score(name, 20.5 + i) for i, name in enumerate(NAMES)]
    written.append(_score("perfect", math.inf))
    text = scores.to_csv(written)
    assert text.startswith("name,input_mse,input_psnr,input_ssim,restored_mse,")
    assert scores.from_csv(text, source="a.csv", remedy="retry") == written


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("input_ssim", "x", r"^a\.csv: no column input_ssim; retry$"),
        ("0.75", "", r"^a\.csv, line 2: restored_ssim is '', not a number; retry$"),
        (",0.75", "", r"^a\.csv, line 2: restored_ssim is None, not a number; retry$"),
    ],
)
def test_malformed_table_is_refused(old, new, message):
    text = scores.to_csv([_score("one", 21.0)]).replace(old, new)
    with pytest.raises(errors.InputError, match=message):
        scores.from_csv(text, source="a.csv", remedy="retry")


@pytest.mark.parametrize("count", range(1, 12))
def test_no_image_is_chosen_twice(count):
    def score(i):
        return scores.Score(str(i), {"psnr": 20.0}, {"psnr": 20.0 + i})

    chosen = scores.choose_cases([score(i) for i in range(count)], 4)
    names = [s.name for group in chosen.values() for s in group]
    assert len(names) == len(set(names)) == min(count, 4 + 2 * max(1, count // 3))
    assert chosen["worst"][0].name == "0"


def test_result_that_is_not_a_number_is_the_worst():
    measured = [
        scores.Score("fine", {"psnr": 20.0}, {"psnr": 19.0}),
        scores.Score("broken", {"psnr": 20.0}, {"psnr": math.nan}),
        scores.Score("perfect", {"psnr": math.inf}, {"psnr": math.inf}),
    ]
    assert measured[2].gain == 0.0
    chosen = scores.choose_cases(measured, 1)
    assert [s.name for s in chosen["worst"] + chosen["best"]] == ["broken", "perfect"]

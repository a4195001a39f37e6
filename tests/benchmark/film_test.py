"""The film benchmark: its scores in closed form, and the whole way on a tiny one."""

import sys

import numpy as np
import pytest

pytest.importorskip("av", reason="needs PyAV (extra film)")
pytest.importorskip("cv2", reason="needs OpenCV (extra film)")

from experiments.benchmark import film
from restoration.base import errors
from tests import film_files


def grey(masks):
    return [255 * np.uint8(mask) for mask in masks]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    clean = film_files.moving(6)
    worn, masks = film_files.dirty(clean)
    for track in ("dirt", "worn"):
        sides = {"input": (worn, "bgr0"), "output": (clean, "bgr0"),
                 "mask": (grey(masks), "gray")}  # fmt: skip
        for side, (frames, pixels) in sides.items():
            folder = root / track / side
            folder.mkdir(parents=True)
            film_files.write(folder / "a.mkv", frames, pixels=pixels, colors=False)
    return root


def test_scores_are_those_of_the_formula(tmp_path):
    clean = [np.full((16, 16, 3), 100, np.uint8)] * 2
    mask = np.zeros((16, 16), bool)
    mask[:4] = True
    worn = [frame.copy() for frame in clean]
    worn[1][mask] = 110
    for name, frames, pixels in (
        ("a", worn, "bgr0"), ("b", clean, "bgr0"), ("m", grey([mask] * 2), "gray")
    ):  # fmt: skip
        film_files.write(tmp_path / f"{name}.mkv", frames, pixels=pixels, colors=False)
    found = film.score(*(tmp_path / f"{name}.mkv" for name in "abm"))
    inside = 10 * np.log10(255**2 / (100 / 2))
    worst = 10 * np.log10(255**2 / (100 / 4))
    assert found == pytest.approx(
        {"psnr": (100 + worst) / 2, "inside": inside, "outside": 100, "worst": worst}
    )


def test_a_benchmark_is_measured(benchmark):
    found = film.measure(str(benchmark), quick=True)
    runs = found["runs"]
    assert found["clips"] == ["a"] and found["frames of each clip"] == 4
    before = runs["dirt, nothing done"]["mean"]["psnr"]
    assert runs["dirt"]["mean"]["psnr"] > before + 5
    assert runs["clean"]["mean"]["psnr"] > 60
    assert runs["dirt"]["frames a second"] > 0


def test_a_peer_is_measured_beside(benchmark, tmp_path):
    """A stand-in for VapourSynth's Python: it gives every frame back as it came."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "sys.stdout.buffer.write(sys.stdin.buffer.read())\n"
        "print('a warning', 0.5, file=sys.stderr)\n"
    )
    python.chmod(0o755)
    clips = ["a.mkv"]
    rows, speed = film._run_peer(str(python), benchmark / "dirt", clips)
    assert rows["a.mkv"] == film.score(
        *(benchmark / "dirt" / side / "a.mkv" for side in ("input", "output", "mask"))
    )
    assert speed == 6 / 0.5
    with pytest.raises(errors.InputError, match="VapourSynth"):
        film._run_peer(str(tmp_path / "none"), benchmark / "dirt", clips)
    python.write_text(f"#!{sys.executable}\nimport no_such_package\n")
    with pytest.raises(errors.InputError, match=r"no_such_package.*pip install"):
        film._run_peer(str(python), benchmark / "dirt", clips)


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(errors.InputError, match="no clips"):
        film.measure(str(tmp_path), quick=True)

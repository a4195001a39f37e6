"""Restored films and the page of `--compare` play in a real browser.

Needs Chromium, see `browser_test`.
"""

import numpy as np
import pytest

pytest.importorskip("av", reason="needs PyAV (extra film)")
pytest.importorskip("cv2", reason="needs OpenCV (extra film)")
pytest.importorskip("playwright.sync_api")

from restoration.inference import film, film_jobs
from restoration.reports import films
from tests import film_files
from tests.web import browser_test

browser = browser_test.browser

# Plays on, from the start, and waits until it has moved.
PLAY = """async video => {
  video.muted = true;
  await video.play();
  await new Promise(done => { video.ontimeupdate = () => {
    if (video.currentTime > 0.1) done();
  }; });
  return [video.videoWidth, video.videoHeight, video.duration];
}"""


def test_a_restored_film_and_its_comparison_play(tmp_path, browser):
    clean = film_files.moving(12)
    worn, _ = film_files.dirty(clean)
    path = film_files.write(
        tmp_path / "reel.mp4", worn, codec="libx264", pixels="yuv420p"
    )
    out = tmp_path / "out"
    jobs, _ = film_jobs.divide(
        [str(path)], str(out), suffix="restored", recursive=False, sequence=False
    )
    settings = film_jobs.Settings(film_finder="spikes", compare=True)
    (result,) = film.restore(jobs, settings)
    assert not result.error
    page = out / "compare_films.html"
    assert films.write(page, [result]) == []

    height, width = np.shape(clean[0])[:2]
    tab = browser_test.Tab(browser, page.as_uri())
    assert tab.page.locator("h2").inner_text() == "reel.mp4"
    shown = tab.page.locator("video").evaluate(PLAY)
    assert shown[0] > 2 * width and shown[1] >= height
    assert shown[2] == pytest.approx(12 / 25, abs=0.05)
    assert tab.complaints == []

    tab = browser_test.Tab(browser, result.output.as_uri())
    assert tab.page.locator("video").evaluate(PLAY) == [
        width, height, pytest.approx(12 / 25, abs=0.05),
    ]  # fmt: skip

"""The page in a real browser, used as a person would.

Needs Chromium: the one of the system (`CHROMIUM` names another), or Playwright's own.
With `PAGE_SCREENSHOTS=FOLDER` pictures of the page are written there. axe-core looks
for barriers where npm has installed it (`npm install --no-save axe-core@4`), or `AXE`
names its file.
"""

import base64
import io
import os
import pathlib
import re
import shutil
import sys
import zipfile

import numpy as np
import pytest
import skimage.filters
import tifffile
from PIL import Image

from restoration.images import frames
from restoration.inference import batch, engine, film, film_jobs
from restoration.models import pretrained
from restoration.web import store
from tests import serving, synthetic_film
from tests.web import small_worker

sync_api = pytest.importorskip("playwright.sync_api")

# Pictures of the page are to be looked at.
LARGE = bool(os.environ.get("PAGE_SCREENSHOTS"))

HAS_FILLER = (pretrained.FOLDER / "filler.safetensors").is_file()


def chromium():
    """Returns the path of a Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    known = [os.environ.get("CHROMIUM"), *map(shutil.which, names)]
    return next((path for path in known if path), None)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        path = chromium() or playwright.chromium.executable_path
        if not pathlib.Path(path).is_file():
            pytest.skip("no Chromium is here; install it, or name it in CHROMIUM")
        # The page is ours; root, as in a container, has no sandbox.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield started
        started.close()


class Tab:
    """A page in the browser; whatever it complains of fails the test."""

    def __init__(self, browser, address, **context):
        self.context = browser.new_context(accept_downloads=True, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.complaints = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda said: (
                self.complaints.append(said.text) if said.type == "error" else None
            ),
        )
        self.page.goto(address)

    def wait(self, condition, *arguments):
        self.page.wait_for_function(condition, arg=list(arguments), timeout=240_000)

    def status(self, text):
        found = self.page.locator("#status")
        sync_api.expect(found).to_contain_text(text, timeout=240_000)

    def at_rest(self):
        self.wait(
            "() => !document.querySelector('#strip .working, #strip .waiting, "
            "#strip .reading, #strip .upload')"
        )

    def drawn(self):
        self.wait("() => window.viewer.ready()")
        self.page.wait_for_timeout(80)

    def download(self, selector):
        with self.page.expect_download() as started:
            self.page.click(selector)
        return started.value.suggested_filename, pathlib.Path(
            started.value.path()
        ).read_bytes()

    def place(self, x, y):
        """Returns where a place of the picture is on the screen."""
        return self.page.evaluate("([x, y]) => window.viewer.toScreen(x, y)", [x, y])

    def drag(self, *places):
        first, *rest = places
        self.page.mouse.move(*first)
        self.page.mouse.down()
        for one in rest:
            self.page.mouse.move(*one, steps=6)
        self.page.mouse.up()

    def pixels(self):
        """Returns what the canvas shows, uint8 (height, width, 3)."""
        self.drawn()
        data = self.page.locator("#canvas").screenshot()
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def picture(self, name):
        folder = os.environ.get("PAGE_SCREENSHOTS")
        if folder:
            path = pathlib.Path(folder) / f"{name}.jpg"
            self.page.screenshot(path=path, type="jpeg", quality=88)

    def close(self):
        self.context.close()
        assert not self.complaints, self.complaints


# Everything that can be used has a name, and is large enough for a thumb on a phone.
NAMELESS = """() => [...document.querySelectorAll('button, a[href], input, select')]
  .filter((element) => element.checkVisibility() && element.tabIndex >= 0)
  .filter((element) => !(element.getAttribute('aria-label') ||
    element.labels?.[0]?.textContent.trim() || element.textContent.trim()))
  .map((element) => element.outerHTML)"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photographs):
    """Three photographs of three kinds, two of one name, and what is none."""
    found = tmp_path_factory.mktemp("photographs")
    # All of one size: networks are compiled for each.
    size = 512 if LARGE else 120
    top, left = (0, 0) if size == 512 else (60, 160)
    photo = photographs["astronaut"][top : top + size, left : left + size].copy()
    generator, scratched = np.random.default_rng(0), np.zeros((size, size), bool)
    for number in range(12):  # scratches
        x, row = generator.uniform(0.1, 0.9) * size, np.arange(size)
        bend = 0.03 * size * np.sin(row / size * generator.uniform(2, 5) + number)
        column = np.clip(x + bend, 0, size - 1).astype(int)
        begin = int(generator.uniform(0, 0.6) * size)
        drawn = slice(begin, begin + size // 3)
        scratched[row[drawn], column[drawn]] = True
    opacity = np.float32(scratched)
    if LARGE:  # as soft as a scanner has them
        opacity = np.minimum(1.6 * skimage.filters.gaussian(opacity, 0.7), 1)
    photo += opacity[..., None] * (0.92 - photo)
    frames.write(found / "portrait.png", photo)
    frames.write(found / "portrait.jpg", photographs["chelsea"][80:200, 150:270])
    deep = (photographs["coffee"][100:220, 100:220] * 65535).astype(np.uint16)
    tifffile.imwrite(found / "scan.tif", deep, photometric="rgb")
    (found / "letter.jpg").write_text("Dear grandmother, ...")
    return found


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """Loads the networks once for all that the command restores here."""
    load, engines = batch.load_engine, {}

    def load_once(options):
        key = options.model, options.keep_color
        if key not in engines:
            engines[key] = load(options)
        return engines[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "load_engine", load_once)
        for name, value in small_worker.SMALL.items():
            patch.setattr(engine, name, value)
        yield


NAMES = ("portrait.png", "portrait.jpg", "scan.tif")


def command(folder, output, **options):
    """Returns the files that the command writes, by their names."""
    given = batch.RestoreOptions(
        input=tuple(str(folder / name) for name in NAMES), output=str(output), **options
    )
    assert not [done.error for done in batch.restore(given) if done.error]
    return {path.name: path.read_bytes() for path in sorted(output.iterdir())}


PHONE = {"device_scale_factor": 2, "has_touch": True, "is_mobile": True}


def unzipped(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def served():
    command = (sys.executable, "-m", small_worker.__name__)
    with serving.page(command=command) as running:
        yield running


def test_what_a_person_would_do(browser, served, folder, tmp_path):
    emptied(served)
    tab = Tab(browser, served.address, viewport={"width": 1280, "height": 800})
    page = tab.page
    sync_api.expect(page.locator("h2").first).to_have_text(
        "Bring an old photograph back"
    )
    tab.picture("welcome")

    page.set_input_files("#files", [folder / name for name in NAMES])
    tab.status("3 of 3 photographs restored")
    tab.at_rest()

    # The slider, by mouse and by key.
    canvas = page.locator("#canvas").bounding_box()
    middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    before = tab.pixels()
    tab.drag(middle, (middle[0] + 120, middle[1]))
    assert page.evaluate("window.viewer.at") > 0.55
    assert np.abs(tab.pixels().astype(int) - before).max() > 60
    page.focus("#divider")
    page.keyboard.press("Home")
    assert page.evaluate("window.viewer.at") == 0
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.viewer.at") == 0.01
    text = page.get_attribute("#divider", "aria-valuetext")
    assert text == "1 % before, 99 % after"
    page.evaluate("window.viewer.setAt(0.5)")
    page.evaluate("document.activeElement.blur()")
    tab.drawn()
    tab.picture("page")

    # A letter that somebody called a photograph fails alone, and says why.
    page.set_input_files("#files", folder / "letter.jpg")
    tab.status("3 of 4 photographs restored, 1 failed")
    row = page.locator("#strip li.failed")
    sync_api.expect(row).to_contain_text("not a readable image")
    assert page.evaluate(NAMELESS) == []

    # Views and zoom; at 100 % a pixel of the picture is one of the screen.
    shown = {}
    for key in "2345":
        page.focus("#canvas")
        page.keyboard.press(key)
        shown[key] = tab.pixels()
    assert all(
        np.abs(shown[a].astype(int) - shown[b]).max() > 60
        for a, b in ("23", "34", "45", "25")
    )
    page.check("input[name=mode][value=before]")
    page.click("#zoom-full")
    sync_api.expect(page.locator("#zoom")).to_have_text("100 %")
    at_full, original = tab.pixels(), frames.read(folder / "portrait.png")
    height, width = original.shape[:2]
    box = page.locator("#canvas").bounding_box()
    assert box["x"] % 1 == box["y"] % 1 == 0
    left, top = (
        round(place - box[axis])
        for place, axis in zip(tab.place(0, 0), "xy", strict=True)
    )
    if height < box["height"]:
        cuts = [
            at_full[top + y : top + y + height, left + x : left + x + width]
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
        ]
        assert any(np.array_equal(cut, frames.to_uint8(original)) for cut in cuts)
    page.click("#zoom-fit")

    # The brush: a stroke that is added, one that is erased, undo and redo.
    page.check("#show-damage")
    page.check("input[name=tool][value=add]")
    untouched = tab.pixels()
    side = width / 120
    tab.drag(
        tab.place(20 * side, 60 * side),
        tab.place(60 * side, 30 * side),
        tab.place(100 * side, 60 * side),
    )
    page.mouse.move(5, 5)
    painted = tab.pixels()
    assert (np.abs(painted.astype(int) - untouched).max(-1) > 40).mean() > 0.002
    tab.picture("brush")
    page.click("#undo")
    assert np.abs(tab.pixels().astype(int) - untouched).max() < 8
    page.click("#redo")
    assert np.array_equal(tab.pixels(), painted)
    name, data = tab.download("#save-mask")
    assert name == "portrait_restored_damage.png"
    mask = np.asarray(Image.open(io.BytesIO(data)))
    assert mask.shape == (height, width) and mask.dtype == np.uint8
    assert mask[round(58 * side), round(22 * side)] == 255
    assert mask[round(30 * side), round(60 * side)] == 255
    page.check("input[name=tool][value=erase]")
    tab.drag(tab.place(0, 60 * side), tab.place(40 * side, 60 * side))
    _, data = tab.download("#save-mask")
    erased = np.asarray(Image.open(io.BytesIO(data)))
    assert erased[round(59 * side), round(22 * side)] == 0
    assert erased[round(30 * side), round(60 * side)] == 255
    (tmp_path / "mask.png").write_bytes(data)
    # A mask of the user's own takes the place of all that.
    page.set_input_files("#mask-file", tmp_path / "mask.png")
    sync_api.expect(page.locator("#undo")).to_be_enabled()
    page.wait_for_timeout(300)
    assert tab.download("#save-mask")[1] == data

    if HAS_FILLER:
        page.click("#again-mask")
        tab.wait(
            "() => document.querySelector('#strip li').className === 'done' && "
            "document.querySelector('#again-mask').disabled"
        )
        name, restored = tab.download("#save")
        given = batch.RestoreOptions(
            input=(str(folder / "portrait.png"),), output=str(tmp_path / "corrected"),
            damage=str(tmp_path / "mask.png"), blind=False,
        )  # fmt: skip
        assert not [done.error for done in batch.restore(given) if done.error]
        assert restored == (tmp_path / "corrected" / name).read_bytes()
        page.click("#afresh")
        tab.wait(
            "() => document.querySelector('#strip li').className === 'done' && "
            "document.querySelector('#afresh').disabled"
        )

    # All of them: bytes and names of the command.
    found = unzipped(tab.download("#save-all")[1])
    assert found == command(folder, tmp_path / "ours")
    assert sorted(found) == [
        "portrait_restored.jpg", "portrait_restored.png", "scan_restored.tif"
    ]  # fmt: skip

    # Other settings, for all; as PNG files two would have one name.
    page.locator("#strength").fill("50")
    page.check("#keep-color")
    page.select_option("#model", "basic")
    page.select_option("#negative", "yes")
    page.select_option("#ext", "png")
    page.click("#apply-all")
    tab.wait(
        "() => [...document.querySelectorAll('#strip li.done')].length === 3 && "
        "document.querySelector('#again').disabled"
    )
    found = unzipped(tab.download("#save-all")[1])
    options = {
        "model": "basic", "strength": 0.5, "keep_color": True, "negative": "yes",
        "ext": "png",
    }  # fmt: skip
    assert found == command(folder, tmp_path / "more", **options)
    assert "portrait_jpg_restored.png" in found
    tab.close()


def emptied(served):
    """Removes what other tests have left."""
    for found in served.state()["pictures"]:
        served.post(f"/api/pictures/{found['key']}/remove")


def test_on_a_phone(browser, served, folder):
    """Another tab, narrow and touched, shows what is there already."""
    wanted = [*NAMES, "letter.jpg"]
    if [found["name"] for found in served.state()["pictures"]] != wanted:
        emptied(served)
        for name in wanted:
            served.upload(folder / name)
    tab = Tab(
        browser, served.address, viewport={"width": 390, "height": 844},
        **PHONE,
    )  # fmt: skip
    page = tab.page
    tab.wait("() => document.querySelectorAll('#strip li').length === 4")
    tab.at_rest()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(NAMELESS) == []
    box = page.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.touchscreen.tap(x + 60, y)
    assert page.evaluate("window.viewer.at") > 0.55
    page.evaluate("window.viewer.setAt(0.5)")
    tab.drawn()
    tab.picture("phone")
    # Two fingers magnify.
    before = page.evaluate("window.viewer.scale")
    send = page.context.new_cdp_session(page).send

    def touch(kind, *places):
        points = [{"x": px, "y": py, "id": n} for n, (px, py) in enumerate(places)]
        send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x - 30, y), (x + 30, y))
    for step in range(1, 6):
        touch("touchMove", (x - 30 - 12 * step, y), (x + 30 + 12 * step, y))
    touch("touchEnd")
    assert page.evaluate("window.viewer.scale") > 1.5 * before
    page.locator("#strip .pick").nth(1).tap()
    sync_api.expect(page.locator("#facts")).to_contain_text("120 × 120 pixels")
    tab.close()


@pytest.fixture(scope="module")
def reel(tmp_path_factory):
    """A small film of two shots, dirty."""
    size = (288, 384) if LARGE else (48, 64)
    lengths = (24, 4, 30) if LARGE else (5, 1, 4)
    clean = synthetic_film.three_shots(size, lengths)
    worn = [synthetic_film.degraded(frame, n, grain=2) for n, frame in enumerate(clean)]
    return synthetic_film.write(
        tmp_path_factory.mktemp("reel") / "reel.mp4", worn, codec="libx264"
    )


def test_a_film(browser, served, folder, reel, tmp_path):
    """A film beside a photograph: its frames, its settings, the command's bytes."""
    emptied(served)
    tab = Tab(browser, served.address, viewport={"width": 1280, "height": 800})
    page = tab.page
    page.set_input_files("#files", [reel, folder / "portrait.jpg"])
    row = page.locator("#strip li", has_text="reel.mp4")
    row.locator(".pick").click()
    if LARGE:
        working = page.locator("#working-text")
        sync_api.expect(working).to_contain_text("Frame ", timeout=240_000)
        tab.picture("film-working")
    sync_api.expect(row).to_have_class("done", timeout=240_000)
    tab.status("2 of 2 files restored")
    sync_api.expect(page.locator("#facts")).to_contain_text("the first is shown")
    # The brush and the settings of photographs are not for it.
    for selector in ("#damage", "#brushes", "#strength", "#model", "#deinterlace"):
        sync_api.expect(page.locator(selector)).to_be_hidden()
    assert page.evaluate(NAMELESS) == []
    shown = {}
    for mode in ("before", "after"):
        page.check(f"input[name=mode][value={mode}]")
        shown[mode] = tab.pixels()
    assert np.abs(shown["before"].astype(int) - shown["after"]).max() > 60
    page.check("input[name=mode][value=slider]")
    tab.drawn()
    tab.picture("film")

    def ours(**options):
        output = tmp_path / "_".join(["film", *options])
        jobs, _ = film_jobs.divide(
            [str(reel)], str(output), suffix="restored", recursive=False, sequence=False
        )
        (done,) = film.restore(jobs, film_jobs.Settings(**options))
        assert not done.error
        return done.output

    name, data = tab.download("#save")
    wanted = ours()
    assert name == wanted.name and data == wanted.read_bytes()
    page.check("#denoise")
    page.select_option("#codec", "ffv1")
    page.click("#again")
    facts = page.locator("#facts")
    sync_api.expect(facts).to_contain_text("reel_restored.mkv", timeout=240_000)
    tab.at_rest()
    found = unzipped(tab.download("#save-all")[1])
    wanted = ours(denoise=True, codec="ffv1")
    assert sorted(found) == ["portrait_restored.jpg", wanted.name]
    assert found[wanted.name] == wanted.read_bytes()
    tab.close()


def axe():
    """Returns axe-core's script, or None."""
    installed = pathlib.Path(__file__).parents[2] / "node_modules" / "axe-core"
    path = pathlib.Path(os.environ.get("AXE", installed / "axe.min.js"))
    return path.read_text(encoding="utf-8") if path.is_file() else None


@pytest.mark.parametrize(
    ("width", "height", "options"), [(1280, 800, {}), (390, 844, PHONE)]
)
def test_without_barriers(browser, folder, reel, width, height, options):
    script = axe()
    if not script:
        pytest.skip("axe-core is not installed (npm install --no-save axe-core@4)")

    def barriers():
        tab.drawn()
        found = page.evaluate("async () => (await axe.run()).violations")
        return [
            (one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found
        ]

    with serving.page() as running:
        tab = Tab(
            browser, running.address, viewport={"width": width, "height": height},
            **options,
        )  # fmt: skip
        page = tab.page
        sync_api.expect(page.locator("#welcome")).to_be_visible()
        page.evaluate(script)
        assert barriers() == []
        photo, reel_data = (folder / "portrait.png").read_bytes(), reel.read_bytes()
        # Restored, with a brush in use; failed; at work; a film that waits.
        for name, data, state in (
            ("photo.png", photo, "done"), ("fails.png", photo, "failed"),
            ("slow.png", photo, "working"), ("reel.mp4", reel_data, "waiting"),
        ):  # fmt: skip
            page.set_input_files(
                "#files", {"name": name, "mimeType": "", "buffer": data}
            )
            row = page.locator("#strip li", has_text=name)
            sync_api.expect(row).to_have_class(state, timeout=60_000)
            row.locator(".pick").click()
            if state == "done":
                page.check("input[name=tool][value=add]")
                page.locator("summary").click()
            assert barriers() == [], name
        page.get_by_label("Cancel slow.png").click()
        sync_api.expect(row).to_have_class("done", timeout=60_000)
        assert barriers() == []
        tab.close()


GIVE = """async ([kind, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: 'image/png' }));
  const options = { bubbles: true, cancelable: true };
  const event = kind === 'paste'
    ? new ClipboardEvent('paste', { ...options, clipboardData: transfer })
    : new DragEvent('drop', { ...options, dataTransfer: transfer });
  document.body.dispatchEvent(event);
}"""


def test_dropping_pasting_cancelling_and_a_program_that_ends(browser, folder, reel):
    with serving.page() as running:
        tab = Tab(browser, running.address)
        page = tab.page
        data = base64.b64encode((folder / "portrait.png").read_bytes()).decode()
        page.evaluate(GIVE, ["paste", "pasted.png", data])
        tab.status("1 of 1 photograph restored")
        page.evaluate(GIVE, ["drop", "slow.png", data])
        row = page.locator("#strip li", has_text="slow.png")
        sync_api.expect(row).to_have_class("working")
        row.locator(".pick").click()
        sync_api.expect(page.locator("#working-text")).to_contain_text("Restoring")
        page.click("#working-cancel")
        sync_api.expect(row).to_have_class("cancelled")
        page.get_by_label("Remove slow.png").click()
        sync_api.expect(page.locator("#strip li")).to_have_count(1)
        # Of a film the frames are told.
        data = base64.b64encode(reel.read_bytes()).decode()
        page.evaluate(GIVE, ["drop", "slow.mp4", data])
        row = page.locator("#strip li", has_text="slow.mp4")
        told = re.compile(r"Frame \d+ of 3,001, .+ left")
        sync_api.expect(row.locator(".line")).to_have_text(told)
        page.get_by_label("Cancel slow.mp4").click()
        sync_api.expect(row).to_have_class("cancelled")
        tab.complaints.clear()
    # The server is gone.
    banner = page.locator("#banner")
    sync_api.expect(banner).to_contain_text("does not answer", timeout=20_000)
    sync_api.expect(banner.get_by_role("button")).to_be_visible()
    tab.complaints.clear()  # that requests failed is what the banner says
    tab.close()


def test_files_that_are_cancelled_or_refused_while_they_are_sent(
    browser, folder, tmp_path
):
    (tmp_path / "large.mp4").write_bytes(bytes(8_000_000))
    with serving.page(limits=store.Limits(total=1_000_000)) as running:
        tab = Tab(browser, running.address)
        page = tab.page
        # What is being sent has one row, and can be cancelled. It takes some ten
        # seconds, so that it is not there before.
        slow = page.context.new_cdp_session(page)
        network = {"offline": False, "latency": 0, "downloadThroughput": -1}
        slow.send(
            "Network.emulateNetworkConditions", network | {"uploadThroughput": 4_000}
        )
        page.set_input_files("#files", folder / "portrait.png")
        strip = page.locator("#strip li")
        sync_api.expect(strip).to_contain_text("Adding, ")
        page.wait_for_timeout(1200)  # it asks for news twice a second
        sync_api.expect(strip).to_have_count(1)
        page.get_by_label("Cancel portrait.png").click()
        sync_api.expect(strip).to_have_count(0)
        slow.send(
            "Network.emulateNetworkConditions", network | {"uploadThroughput": -1}
        )
        page.set_input_files("#files", tmp_path / "large.mp4")
        row = page.locator("#strip li", has_text="large.mp4")
        sync_api.expect(row).to_contain_text("all files together take more than 1 MB")
        # The others go on.
        page.set_input_files("#files", folder / "portrait.png")
        tab.status("1 of 1 photograph restored")
        page.get_by_label("Remove large.mp4").click()
        sync_api.expect(page.locator("#strip li")).to_have_count(1)
        tab.complaints.clear()  # that the request was refused is what the row says
        tab.close()


def test_a_folder_keeps_its_sub_folders(browser, photographs, tmp_path):
    (tmp_path / "Album" / "1950").mkdir(parents=True)
    small = photographs["rocket"][:40, :50]
    frames.write(tmp_path / "Album" / "a.png", small)
    frames.write(tmp_path / "Album" / "1950" / "b.png", small)
    (tmp_path / "Album" / "notes.txt").write_text("not a photograph")
    with serving.page() as running:
        tab = Tab(browser, running.address)
        tab.page.set_input_files("#folder", tmp_path / "Album")
        tab.status("2 of 2 photographs restored")
        names = set(unzipped(tab.download("#save-all")[1]))
        assert names == {"a_restored.png", "1950/b_restored.png"}
        tab.page.once("dialog", lambda dialog: dialog.accept())
        tab.page.click("#end")
        sync_api.expect(tab.page.locator("h2")).to_have_text("Ended")
        tab.close()


def test_the_readme_shows_the_page():
    docs = pathlib.Path(__file__).parents[2] / "docs"
    picture = docs / "page.jpg"
    assert picture.is_file() and picture.stat().st_size < 300_000
    texts = [path.read_text(encoding="utf-8") for path in docs.rglob("*.md")]
    assert any(re.search(r"!\[[^\]]+\]\([./]*page\.jpg\)", text) for text in texts)

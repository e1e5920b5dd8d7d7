"""The demo page in a real browser: upload, progress, overlay, download; objects that are painted or clicked."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.apis.demo_server import CONFIG, OTHER, running, write_choices, write_sound, write_video

PLAYING = "() => { const v = document.querySelector('#player'); return v.readyState >= 2 && v.videoWidth }"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def server(folder):
    with running(write_choices(folder), max_upload=10**6) as server:
        yield server


@pytest.fixture
def opened(page, server):
    """The page, as it is when it has been opened. It asks nobody but the server for anything."""
    page.goto(server.address)
    page.wait_for_selector("#config option", state="attached")
    yield page
    assert all(address.startswith((server.address, "data:", "blob:")) for address in page.addresses), page.addresses


def choose(page, config: str, checkpoint: str) -> None:
    page.select_option("#checkpoint", checkpoint)
    page.select_option("#config", config)
    page.wait_for_function("() => document.querySelector('#model').textContent")


def run(page) -> None:
    page.click("#run")
    page.wait_for_selector("#files:not([hidden]), #job-error:not([hidden])")
    assert page.locator("#job-error").is_hidden(), page.inner_text("#job-error")


def download(page, ending: str, folder):
    with page.expect_download() as started:
        page.click(f"#files a[download$='{ending}']")
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def test_from_an_upload_to_a_download(opened, folder):
    page = opened
    choose(page, CONFIG, "tiny.pth")
    assert page.inner_text("#model") == "CFFM: labels each pixel with one of 3 classes"
    assert page.is_disabled("#run") and "Choose a video" in page.inner_text("#missing")
    page.set_input_files("#file", write_video(folder / "square.mp4", frames=60))  # so many that some are seen to pass
    page.wait_for_selector("#video:has-text('square: 70x44, 60 frames, 10 per second')")
    assert page.locator("#objects").is_hidden() and page.locator("#first").is_visible()
    page.fill("#opacity", "80")
    page.evaluate(  # every text of the progress is kept
        "() => { window.seen = []; new MutationObserver(() => seen.push(document.querySelector('#phase').textContent))"
        ".observe(document.querySelector('#phase'), { childList: true }) }"
    )
    run(page)
    seen = page.evaluate("() => seen")
    assert any(text.startswith("Frame ") and text.endswith(" of 60") for text in seen), seen
    page.wait_for_function(PLAYING)
    assert "60 frames" in page.inner_text("#caption")
    numbers = json.loads(download(page, ".json", folder).read_text())
    assert len(numbers["frames"]) == 60 and numbers["classes"] == ["floor", "box", "ball"]
    assert len(zipfile.ZipFile(download(page, ".zip", folder)).namelist()) == 63
    assert download(page, ".mp4", folder).read_bytes()[4:8] == b"ftyp"
    page.reload()
    page.wait_for_selector("#files:not([hidden]) a[download$='.zip']")


def test_objects_that_are_painted_and_clicked(opened, folder):
    """The marks come back as the result of the first frame, under their ids."""
    page = opened
    choose(page, "gsfm.py", "none")
    assert "follows objects that you mark" in page.inner_text("#model")
    page.set_input_files("#file", write_video(folder / "object.mp4", frames=2))
    page.wait_for_selector("#canvas")
    assert page.is_disabled("#run") and "Mark at least one object" in page.inner_text("#missing")
    scale = page.locator("#canvas").bounding_box()["width"] / 70

    def at(x: float, y: float) -> dict:
        return {"x": (x + 0.5) * scale, "y": (y + 0.5) * scale}

    page.click("[data-tool=click]")
    page.click("#canvas", position=at(15, 20))  # the square, columns 5 to 24, rows 10 to 29
    page.click("#ids [data-id='2']")
    page.click("[data-tool=brush]")
    page.fill("#size", "20")
    page.click("#canvas", position=at(40, 40))
    page.click("#undo")
    page.locator("#canvas").hover(position=at(40, 35))
    page.mouse.down()
    box = page.locator("#canvas").bounding_box()  # where it has been scrolled to
    page.mouse.move(box["x"] + 60 * scale, box["y"] + 35 * scale, steps=4)
    page.mouse.up()
    run(page)
    archive = zipfile.ZipFile(download(page, ".zip", folder))
    first = next(name for name in sorted(archive.namelist()) if name.endswith(".png"))
    labels = np.array(Image.open(archive.open(first)))
    assert set(np.unique(labels)) == {0, 1, 2}
    expected = np.zeros((44, 70), bool)
    expected[10:30, 5:25] = True
    assert (labels == 1)[expected].mean() > 0.85 and (labels == 1)[~expected].mean() < 0.05
    rows, columns = np.nonzero(labels == 2)
    assert rows.min() >= 33 and rows.max() <= 38 and columns.min() in range(38, 41) and columns.max() in range(59, 63)


def test_what_goes_wrong_is_told_and_the_page_goes_on(opened, folder):
    page = opened
    choose(page, CONFIG, OTHER)
    text, sound, large = folder / "notes.mp4", write_sound(folder / "sound.mp4"), folder / "large.mp4"
    text.write_text("no video")
    large.write_bytes(bytes(10**6 + 1))
    for path, message in ((text, "notes.mp4: no video"), (sound, "sound.mp4"), (large, "1.0 MB at most")):
        page.set_input_files("#file", path)
        page.wait_for_selector(f"#video-error:has-text('{message}')")
    page.faults.clear()  # the browser lists the refusals of the server
    page.click("#sample")
    page.wait_for_selector("#video:has-text('sample: 400x240')")
    assert page.locator("#video-error").is_hidden()
    page.click("#run")
    page.wait_for_selector(f"#job-error:has-text('{OTHER}')")
    assert "What to do" in page.inner_text("#job-error")
    page.set_input_files("#file", write_video(folder / "fine.mp4", frames=3))
    page.wait_for_selector("#video:has-text('fine')")
    choose(page, CONFIG, "tiny.pth")
    run(page)


def test_two_people_at_once(opened, server, browser, folder):
    """The second one waits in the queue, and sees nothing of the first one's video."""
    video, first = write_video(folder / "long.mp4", frames=400), opened
    context = browser.new_context()
    second = context.new_page()
    second.set_default_timeout(60_000)
    second.goto(server.address)
    for page in (first, second):
        page.wait_for_selector("#config option", state="attached")
        choose(page, CONFIG, "tiny.pth")
        page.set_input_files("#file", video)
        page.wait_for_selector("#video:has-text('long')")
    first.click("#run")
    first.wait_for_selector("#phase:has-text('Frame')")
    second.click("#run")
    second.wait_for_selector("#phase:has-text('1 before you')")
    assert second.locator("#shown").is_hidden()
    first.click("#cancel")
    first.wait_for_selector("#cancelled:not([hidden])")
    second.wait_for_selector("#phase:has-text('Frame')")
    second.click("#cancel")
    second.wait_for_selector("#cancelled:not([hidden])")
    assert first.is_enabled("#run")
    context.close()

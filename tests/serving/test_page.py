"""The page, used in a browser: on a phone and on a desk, by mouse and by keys, in the words a screen reader says."""

import io
import re
import shutil
import time
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

import dracones
from serving_parts import BAD, GOOD, house_of, running

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def test_the_page_asks_no_other_host_and_may_not(client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    text = (files("dracones.serving") / "page.html").read_text()
    assert answer.text == text
    assert not re.findall(r"https?://", text)
    assert " style=" not in text, "the policy would forbid it"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
        )
        yield opened
        opened.close()


@pytest.fixture
def port(model, tmp_path):
    house = house_of(model, dracones.load, confirmed=tmp_path / "confirmed", deadline=10)
    with running(house) as found:
        yield found


def opened(browser, port, width, height=900, path="/"):
    page = browser.new_page(viewport={"width": width, "height": height})
    page.faults = []
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(f"http://127.0.0.1:{port}{path}")
    until(page, "document.getElementById('facts').textContent.includes('calibrated')")
    return page


def until(page, what, seconds=20):
    """Wait for an expression to hold; the page's own policy forbids Playwright's way, which evaluates text."""
    end = time.monotonic() + seconds
    while not page.evaluate(what):
        assert time.monotonic() < end, what
        time.sleep(0.05)


def upload(page, *images):
    page.evaluate("document.getElementById('progress').textContent = ''")
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in images])
    until(page, f"document.getElementById('progress').textContent.startsWith('{len(images)} looked at')")


@pytest.mark.parametrize("width", [390, 1280])
def test_images_are_judged_shown_and_confirmed(browser, port, width, tmp_path):
    page = opened(browser, port, width)
    upload(page, ("good.png", GOOD))
    assert page.inner_text("#verdict").split("\n")[-1].strip() == "Normal"
    upload(page, ("bad.png", BAD))
    assert page.inner_text("#verdict").split("\n")[-1].strip() == "Anomalous"
    assert "None of the 60 good images" in page.inner_text("#words")
    assert "bad.png: Anomalous" in page.text_content("#live")
    assert page.locator("#strip li").count() == 2
    heat, photo = page.locator("#heat").bounding_box(), page.locator("#photo").bounding_box()
    assert heat == pytest.approx(photo, abs=1), "the heat lies on the image"
    page.locator("#opacity").focus()
    page.keyboard.press("Home")
    assert page.locator("#heat").evaluate("each => getComputedStyle(each).opacity") == "0"
    page.keyboard.press("End")
    assert page.locator("#heat").evaluate("each => getComputedStyle(each).opacity") == "1"
    page.get_by_role("button", name="This one is good").click()
    until(page, "document.getElementById('confirm').textContent === 'Kept as good'")
    (kept,) = (tmp_path / "confirmed" / "part").iterdir()
    assert kept.read_bytes() == BAD
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out to the side"
    assert page.faults == []
    page.close()


def test_everything_is_reached_by_keys_and_has_a_name(browser, port):
    page = opened(browser, port, 1280)
    upload(page, ("good.png", GOOD), ("bad.png", BAD))
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.parentElement.tagName"))
    assert {"model", "files", "folder", "camera", "opacity", "confirm", "LI"} <= reached
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter(each => each.checkVisibility() && "
        "!(each.labels && each.labels.length) && !each.textContent.trim() && !each.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    page.locator("#strip button").first.focus()
    names = []
    for key in ("Home", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
        names.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
        assert page.locator("#strip [aria-current]").count() == 1
    assert names[0] == names[2] != names[1]
    assert {"good.png: Normal", "bad.png: Anomalous"} == {name.partition(",")[0] for name in names}
    page.close()


def test_a_camera_a_folder_of_other_files_and_a_kind_that_browsers_do_not_show(browser, port, tmp_path):
    page = opened(browser, port, 1280)
    page.get_by_role("button", name="Camera").click()
    until(page, "document.getElementById('video').videoWidth > 0")
    page.get_by_role("button", name="Take a picture").click()
    until(page, "document.getElementById('progress').textContent.startsWith('1 looked at')")
    assert "camera-" in page.inner_text("#numbers")
    page.get_by_role("button", name="Stop the camera").click()
    stream = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(stream, "TIFF")
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "a.tif").write_bytes(stream.getvalue())
    (folder / "broken.png").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("no image")
    page.set_input_files("#folder", str(folder))
    until(page, "document.getElementById('progress').textContent.startsWith('2 looked at')")
    assert "1 could not be judged: broken.png" in page.inner_text("#progress")
    until(page, "document.getElementById('photo').naturalWidth > 0")
    assert page.locator("#photo").get_attribute("src").startswith("blob:")
    page.close()


def test_a_service_with_a_token_is_asked_for_it(browser, model):
    playwright = pytest.importorskip("playwright.sync_api")
    with running(house_of(model, dracones.load, token="long enough")) as port:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.fill("#token", "wrong one")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('token').value === ''")
        page.wait_for_selector("#ask[open]")
        page.fill("#token", "long enough")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('facts').textContent.includes('calibrated')")
        playwright.expect(page.locator("#ask")).to_be_hidden()
        page.close()


def test_an_alarm_of_the_monitor_is_drawn(browser, port):
    page = opened(browser, port, 390)
    # Drawn and read in one go: every three seconds the page draws what the service says.
    said, lines = page.evaluate(
        """() => {
            watch({alarm: true, seen: 40, threshold: 4.7, curve: [0, 1, 3, 6], sources: {'line 3': {alarm: true}}});
            return [$("monitor").innerText, document.querySelectorAll("#curve polyline").length];
        }"""
    )
    assert "Yes: they are no longer like those" in said
    assert "line 3" in said
    assert lines == 1
    page.close()

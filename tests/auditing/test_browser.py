"""The page of an audit in a real browser; skipped where there is no Chromium."""

import base64
import json
import shutil

import numpy as np
import pytest

from advens.auditing.compare import compare
from advens.auditing.report import render
from tests.auditing.samples import sample_audit

webdriver = pytest.importorskip("selenium.webdriver")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"
)
OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-sync "
    "--disable-background-networking --disable-component-update --no-first-run"
)
EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the address and the outcomes of each of some audits, by name."""

    def hostile(document):
        for part in (document, document["members"][0], document["data"]):
            part |= {"verdict": EVIL, "name": EVIL, "file": EVIL}
        document["attacks"][0]["name"] = EVIL

    audits = {
        "digits": sample_audit(n=200, num_members=10, seed=1),
        "failed": sample_audit(n=40, num_members=5, failed=("noise",)),
        "photos": sample_audit(
            n=20, shape=(96, 80, 3), norm="l2", num_classes=100, num_members=1
        ),
        "no pictures": sample_audit(shape=(30,), num_classes=2, num_members=2),
        "hostile": sample_audit(),
    }
    hostile(audits["hostile"][0])
    directory = tmp_path_factory.mktemp("pages")
    written = {}
    for name, (document, outcomes, x) in audits.items():
        other = compare(document, outcomes, document, outcomes)
        html = render(document, outcomes, x, other=other if name == "failed" else None)
        path = directory / f"{name}.html"
        path.write_text(html, encoding="utf-8")
        written[name] = path.as_uri(), outcomes
    return written


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in OPTIONS.split():
        options.add_argument(option)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def show(browser, address, *, width=1200, dark=False, media=""):
    """Open a page, of a width and in a colour scheme, with the logs emptied."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    light = {"media": media, "features": [scheme]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(address)
    # A busy machine answers `get` before the page is parsed.
    parsed = "return document.readyState === 'complete' && location.href"
    WebDriverWait(browser, 60).until(
        lambda _: browser.execute_script(parsed) == address
    )


def shown_tiles(browser):
    tiles = browser.find_elements(By.CSS_SELECTOR, ".tiles > li:not([hidden])")
    assert all(tile.is_displayed() for tile in tiles)
    return tiles


def choose(browser, **choices):
    for name, value in choices.items():
        Select(browser.find_element(By.NAME, name)).select_by_visible_text(value)


NAMES = ["digits", "failed", "photos", "no pictures", "hostile"]


@pytest.mark.parametrize("name", NAMES)
def test_no_errors_no_network_all_pictures(browser, pages, name):
    show(browser, pages[name][0])
    assert browser.get_log("browser") == []
    messages = [
        json.loads(m["message"])["message"] for m in browser.get_log("performance")
    ]
    requested = {
        message["params"]["request"]["url"].split(":")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert requested <= {"file", "data"}
    missing = """
        return [...document.images].filter(
          (image) => image.closest("dialog") === null && !image.naturalWidth).length"""
    assert browser.execute_script(missing) == 0
    count = browser.execute_script("return document.images.length")
    shown = {"digits": 200, "failed": 40, "photos": 20, "no pictures": 0, "hostile": 40}
    assert count == 3 * shown[name] + (3 if shown[name] else 0)


def test_nothing_of_an_audit_is_run(browser, pages):
    show(browser, pages["hostile"][0])
    browser.find_element(By.CSS_SELECTOR, ".tiles button").click()
    assert browser.execute_script("return window.hacked") is None
    assert EVIL in browser.find_element(By.TAG_NAME, "h1").text


@pytest.mark.parametrize("width", [360, 390, 768])
@pytest.mark.parametrize("name", NAMES)
def test_no_horizontal_scrolling(browser, pages, name, width):
    show(browser, pages[name][0], width=width)
    wide = "const d = document.documentElement; return d.scrollWidth - d.clientWidth"
    assert browser.execute_script(wide) == 0


# WCAG 2.1: contrast of at least 4.5. A colour is drawn to learn its components. Not
# judged: what is hidden, and text within charts, which has no background of its own.
CONTRAST = """
const context = new OffscreenCanvas(1, 1).getContext("2d");
function components(color) {
  context.clearRect(0, 0, 1, 1);
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
}
function luminance(color) {
  const [r, g, b] = components(color).map(
    (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const weak = [];
for (const element of document.querySelectorAll("main *")) {
  const text = [...element.childNodes].some(
    (node) => node.nodeType === 3 && node.textContent.trim());
  if (!text || !element.checkVisibility() || element.closest("svg")) continue;
  let behind = element;
  while (behind && components(getComputedStyle(behind).backgroundColor)[3] < 1)
    behind = behind.parentElement;
  const one = luminance(getComputedStyle(element).color);
  const two = luminance(getComputedStyle(behind).backgroundColor);
  const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  if (contrast < 4.3) weak.push([element.textContent, contrast]);
}
return weak;
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["digits", "failed"])
def test_contrast(browser, pages, name, dark):
    show(browser, pages[name][0], dark=dark)
    background = "return getComputedStyle(document.body).backgroundColor"
    red = int(browser.execute_script(background).split("(")[1].split(",")[0])
    assert red < 60 if dark else red > 200
    assert browser.execute_script(CONTRAST) == []


def test_filter(browser, pages):
    address, outcomes = pages["digits"]
    show(browser, address)
    assert len(shown_tiles(browser)) == 48
    choose(browser, fate="resisted")
    count = int(outcomes["robust"].sum())
    tiles = shown_tiles(browser)
    assert len(tiles) == min(48, count)
    assert {tile.get_attribute("data-fate") for tile in tiles} == {"resisted"}
    choose(browser, label="3")
    count = int((outcomes["robust"] & (outcomes["y"] == 3)).sum())
    tiles = shown_tiles(browser)
    assert 0 < len(tiles) == count
    assert {tile.get_attribute("data-label") for tile in tiles} == {"3"}
    output = browser.find_element(By.CSS_SELECTOR, ".filter output")
    assert output.text == f"{count} of {count} shown"
    choose(browser, attack="PGD, Grad. 2")
    assert shown_tiles(browser) == []
    choose(browser, fate="all", label="all")
    assert len(shown_tiles(browser)) == (outcomes["broken_by"] == 3).sum() > 0


def test_show_more(browser, pages):
    show(browser, pages["digits"][0])
    more = browser.find_element(By.CSS_SELECTOR, ".more button")
    for count in (96, 144, 192, 200):
        more.click()
        assert len(shown_tiles(browser)) == count
    assert not more.is_displayed()


def test_large_view(browser, pages):
    address, outcomes = pages["digits"]
    show(browser, address)
    choose(browser, fate="fell", label="7")
    fell = np.flatnonzero((outcomes["broken_by"] >= 0) & (outcomes["y"] == 7))
    assert len(fell) > 2
    tiles = shown_tiles(browser)
    tiles[0].find_element(By.TAG_NAME, "button").click()
    dialog = browser.find_element(By.TAG_NAME, "dialog")
    facts = dialog.find_element(By.CLASS_NAME, "facts")
    assert f"Image {fell[0]}, of class 7. Broken by" in facts.text
    probed = fell[0] % 2 == 0
    assert ("Smallest eps found that breaks it: 0.0" in facts.text) == probed
    predicted = [b.text for b in dialog.find_elements(By.CSS_SELECTOR, "figcaption b")]
    assert predicted == [
        "predicted 7",
        "0.1",
        f"predicted {outcomes['predicted'][fell[0]]}",
    ]
    sources = (
        "return [...arguments[0].querySelectorAll('img')].map((image) => image.src)"
    )
    assert browser.execute_script(sources, dialog) == browser.execute_script(
        sources, tiles[0]
    )
    keys = dialog.find_element(By.CSS_SELECTOR, "[data-close]")
    keys.send_keys(Keys.ARROW_RIGHT)
    assert f"Image {fell[1]}," in facts.text
    keys.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert f"Image {fell[-1]}," in facts.text
    dialog.find_element(By.CSS_SELECTOR, "[data-move='1']").click()
    assert f"Image {fell[0]}," in facts.text
    keys.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()


def test_citations_can_be_copied(browser, pages):
    show(browser, pages["digits"][0])
    button = browser.find_element(By.CLASS_NAME, "copy")
    button.click()
    changed = "return arguments[0].textContent !== 'Copy BibTeX'"
    wait = WebDriverWait(browser, 5)
    wait.until(lambda driver: driver.execute_script(changed, button))


def test_print(browser, pages):
    show(browser, pages["digits"][0], dark=True, media="print")
    for hidden in ("nav", ".filter", ".more", ".copy", "details"):
        assert not browser.find_element(By.CSS_SELECTOR, hidden).is_displayed()
    background = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(background) == "rgb(255, 255, 255)"
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {})["data"]
    pages_printed = base64.b64decode(pdf).count(b"/Type /Page\n")
    assert 4 <= pages_printed <= 12


@pytest.mark.parametrize("name", ["digits", "failed"])
def test_names_for_those_who_cannot_see(browser, pages, name):
    show(browser, pages[name][0])
    nameless = """
        return [...document.querySelectorAll("svg, img, select, button, dialog, nav")]
          .filter((element) => !element.closest("[aria-hidden], dialog figure"))
          .filter((element) => !(element.alt || element.ariaLabel ||
            element.labels?.[0]?.textContent || element.textContent.trim()))
          .map((element) => element.outerHTML.slice(0, 80))"""
    assert browser.execute_script(nameless) == []
    levels = (
        "return [...document.querySelectorAll('h1,h2,h3')].map((h) => h.tagName[1])"
    )
    numbers = [int(level) for level in browser.execute_script(levels)]
    assert numbers[0] == 1 and numbers.count(1) == 1
    assert max(np.diff(numbers)) <= 1

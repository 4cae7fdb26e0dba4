"""The rating page in Chromium, from the first key to the analysis."""

import hashlib
import json

import pytest
from test_opinion import SCORES, pictures

from srgan_lib import opinion

pytestmark = pytest.mark.slow

PATIENCE = 60_000  # ms
PAUSE = 320  # ms; the page takes no answer before


class Rater:
    """A person before the page: sees pictures, has keys and a mouse."""

    def __init__(self, page, study, key):
        self.page, self.study, self.key = page, study, key
        self.method = {
            uri: key["pictures"][picture][1]
            for picture, uri in study["pictures"].items()
        }

    def open(self, path):
        self.page.goto(path.as_uri())

    def closed_and_back(self, folder):
        """The same rater, after the tab was closed."""
        page = self.page.context.new_page()
        page.wrong = self.page.wrong
        self.page.close()
        rater = Rater(page, self.study, self.key)
        rater.open(folder / "sheet.html")
        return rater

    def button(self, name):
        return self.page.get_by_role("button", name=name)

    def sees(self):
        """The methods on the screen, by their pictures alone."""
        sources = self.page.locator("#stage img").evaluate_all(
            "all => all.map((image) => image.src)"
        )
        return [self.method[source] for source in sources]

    @property
    def wanted(self):
        """Which key this rater would press, 1 for the first."""
        if self.key["mode"] == "mos":
            return SCORES[self.sees()[0]]
        _, left, right = self.sees()
        return 1 if SCORES[left] > SCORES[right] else 2

    def press(self, key):
        self.page.wait_for_timeout(PAUSE)
        self.page.keyboard.press(str(key))

    def click(self, number):
        self.page.wait_for_timeout(PAUSE)
        self.page.locator("#keys button").nth(number - 1).click()

    def heading(self):
        return self.page.locator("h2:visible").inner_text()

    def rates(self):
        return self.page.locator("#trial").is_visible()

    def save(self, name, folder):
        with self.page.expect_download() as download:
            self.button(name).click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path


@pytest.fixture
def sit(browser, tmp_path):
    """sit(mode, ...) -> a Rater before a page of that study"""
    contexts = []

    def start(mode="mos", width=1440, images=("one",), **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, **options
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.wrong = []
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("request", lambda r: page.wrong.extend(foreign(r.url)))
        made = opinion.make_study(
            pictures(("alpha", "beta"), images), mode, zoom=3
        )
        opinion.write_sheet(tmp_path / "sheet.html", *made, force=True)
        rater = Rater(page, *made)
        rater.open(tmp_path / "sheet.html")
        return rater

    yield start
    for context in contexts:
        wrong = [w for p in context.pages for w in getattr(p, "wrong", ())]
        context.close()
        assert not wrong


def foreign(url):
    return [] if url.startswith(("file:", "data:", "blob:")) else [url]


def test_scores_by_keyboard_closed_resumed_saved_analyzed(sit, tmp_path):
    rater = sit(images=("one", "two"))
    page = rater.page
    page.get_by_label("Rater id").fill("anna")
    page.keyboard.press("Enter")
    assert rater.heading() == "Picture 1 of 8"

    first = rater.wanted
    rater.press(6)  # no such score
    assert rater.heading() == "Picture 1 of 8"
    rater.press(6 - first)  # a slip ...
    assert rater.heading() == "Picture 2 of 8"
    page.keyboard.press("5")  # too soon: the finger rested on the key
    assert rater.heading() == "Picture 2 of 8"
    page.keyboard.press("Backspace")  # ... and its correction
    assert rater.heading() == "Picture 1 of 8"
    pressed = page.locator("#keys [aria-pressed=true]")
    assert pressed.inner_text().startswith(str(6 - first))
    rater.press(first)
    for _ in range(3):
        rater.press(rater.wanted)
    assert rater.heading() == "Picture 5 of 8"
    assert page.get_by_label("Answered").evaluate("bar => bar.value") == 4
    part = rater.save("Save for now", tmp_path)
    assert part.name.endswith("-anna-incomplete.json")

    rater = rater.closed_and_back(tmp_path)
    again = rater.page
    assert again.get_by_text("Rater anna has answered 4 of 8.").is_visible()
    assert not again.get_by_label("Rater id").is_visible()
    rater.button("Go on").focus()
    again.keyboard.press("Enter")
    assert rater.heading() == "Picture 5 of 8"
    while rater.rates():
        rater.press(rater.wanted)
    assert rater.heading() == "Thank you"
    whole = rater.save("Save my answers", tmp_path)

    _, left_out = opinion.read_answers(rater.key, [part, whole])
    assert left_out == [(str(part), "is incomplete (4 of 8 answers)")]
    result = opinion.analyze(rater.key, [part, whole])
    scores = {m: f["score"] for m, f in result["methods"].items()}
    assert scores == {m: SCORES[m] for m in ("nearest", "alpha", "beta", "hr")}


def test_pairs_by_mouse_saved_analyzed(sit, tmp_path):
    rater = sit("pairs", images=("one", "two"))
    rater.button("Start").click()
    for number in range(4):
        assert rater.heading() == f"Pair {number + 1} of 4"
        assert rater.sees()[0] == "hr"  # the original, above the two
        rater.click(rater.wanted)
    path = rater.save("Save my answers", tmp_path)
    result = opinion.analyze(rater.key, [path])
    assert result["methods"]["beta"]["preferred"] == 1
    assert result["raters"][0]["told_apart"] == 2


def test_scores_by_mouse_saved_analyzed(sit, tmp_path):
    rater = sit()
    rater.button("Start").click()
    while rater.rates():
        rater.click(rater.wanted)
    path = rater.save("Save my answers", tmp_path)
    found = opinion.analyze(rater.key, [path])["methods"]
    assert {m: found[m]["score"] for m in found} == {
        m: SCORES[m] for m in ("nearest", "alpha", "beta", "hr")
    }


def test_pairs_go_on_after_the_tab_was_closed(sit, tmp_path):
    rater = sit("pairs", images=("one", "two"))
    rater.button("Start").click()
    for _ in range(3):
        rater.click(rater.wanted)
    rater = rater.closed_and_back(tmp_path)
    rater.button("Go on").click()
    assert rater.heading() == "Pair 4 of 4"
    rater.click(rater.wanted)
    path = rater.save("Save my answers", tmp_path)
    result = opinion.analyze(rater.key, [path])
    assert result["methods"]["beta"]["preferred"] == 1


def test_pairs_by_arrow_keys(sit, tmp_path):
    rater = sit("pairs")
    rater.button("Start").click()
    while rater.rates():
        rater.press(("ArrowLeft", "ArrowRight")[rater.wanted - 1])
    result = opinion.analyze(
        rater.key, [rater.save("Save my answers", tmp_path)]
    )
    assert result["methods"]["beta"]["preferred"] == 1


def test_sides_and_order_change_from_rater_to_rater(sit):
    rater = sit("pairs")
    seen = rater.page.evaluate(
        """() => ["a", "b", "c", "d", "e", "f"].map((rater) => {
          state = { rater, answers: {} };
          arrange();
          return [order, order.map(sides)];
        })"""
    )
    for rater_id, (order, _) in zip("abcdef", seen, strict=True):
        assert order == opinion.trial_order(rater.key, rater_id)
    for trial, shown in rater.key["trials"].items():
        sides = {tuple(sides[order.index(trial)]) for order, sides in seen}
        assert sides == {tuple(shown), tuple(reversed(shown))}


def test_the_digest_is_sha_256(sit):
    texts = ["x" * length for length in range(0, 140, 3)] + ["äöü €" * 9]
    found = sit().page.evaluate("texts => texts.map(sha256)", texts)
    assert found == [hashlib.sha256(t.encode()).hexdigest() for t in texts]


def test_names_are_nowhere_on_the_screen_or_in_the_markup(sit):
    rater = sit()
    texts = [rater.page.content()]
    rater.button("Start").click()
    while rater.rates():
        texts.append(rater.page.content())
        rater.press(3)
    texts.append(rater.page.content())
    for text in texts:
        for name in ("alpha", "beta", "nearest", "one.png"):
            assert name not in text.replace(rater.study["title"], "")


@pytest.mark.parametrize(
    ("width", "ratio"), [(1440, 1), (1440, 1.25), (390, 3), (320, 1)]
)
@pytest.mark.parametrize("mode", ["mos", "pairs"])
def test_pixels_are_whole_and_the_page_fits(sit, mode, width, ratio):
    rater = sit(mode, width, device_scale_factor=ratio)
    for screen in ("start", "trial"):
        if screen == "trial":
            rater.button("Start").click()
        rater.page.wait_for_timeout(100)
        zooms = rater.page.locator(".stage img:visible").evaluate_all(
            """all => all.map((i) => i.getBoundingClientRect().width
              * devicePixelRatio / i.naturalWidth)"""
        )
        for zoom in zooms:
            assert zoom == pytest.approx(round(zoom), abs=0.01) and zoom >= 1
        assert rater.page.evaluate(
            "document.documentElement.scrollWidth <= innerWidth"
        )
    # 16 pixels, three times: that always fits.
    assert zooms[0] == pytest.approx(int(3 * ratio), abs=0.01)


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d");
  const light = (color) => {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) =>
      (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    const color = getComputedStyle(e).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" && e.parentElement
      ? behind(e.parentElement) : color;
  };
  return [...document.querySelectorAll("main *")].filter((e) =>
    e.offsetParent && e.innerText?.trim() && !e.disabled).map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return [e.innerText.slice(0, 30), ratio];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_everything_a_name(sit, scheme):
    rater = sit(color_scheme=scheme)
    page = rater.page
    for screen in ("start", "trial", "end"):
        if screen == "trial":
            rater.button("Start").click()
        while screen == "end" and rater.rates():
            rater.press(3)
        for text, ratio in page.evaluate(CONTRASTS):
            assert ratio >= 4.5, (screen, text, ratio)
        for button in page.locator("button:visible").all():
            assert button.inner_text().strip()
        for image in page.locator("img:visible").all():
            assert len(image.get_attribute("alt")) > 5
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (scheme == "light")


def test_a_study_can_be_taken_with_tab_and_enter(sit):
    rater = sit()
    page = rater.page
    page.keyboard.press("Tab")  # the rater's id
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Start"
    page.keyboard.press("Enter")
    # Screen readers are told where they are, and Tab leads to the scores.
    assert page.evaluate("document.activeElement.tagName") == "H2"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText")[0] == "1"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.wait_for_timeout(PAUSE)
    page.keyboard.press("Space")
    assert rater.heading() == "Picture 2 of 4"


def test_the_next_rater_starts_anew(sit):
    rater = sit()
    questions = []
    rater.page.on(
        "dialog", lambda d: (questions.append(d.message), d.accept())
    )
    first = rater.page.get_by_label("Rater id").input_value()
    rater.button("Start").click()
    while rater.rates():
        rater.press(3)
    rater.button("Next rater").click()
    assert len(questions) == 1
    second = rater.page.get_by_label("Rater id").input_value()
    assert len(first) == len(second) == 8 and first != second
    rater.page.reload()
    assert rater.page.get_by_label("Rater id").is_visible()


def test_a_rater_id_that_is_none_is_refused(sit):
    rater = sit()
    rater.page.get_by_label("Rater id").fill("<b>anna</b>")
    rater.button("Start").click()
    assert not rater.rates()


def test_a_browser_that_keeps_nothing_says_so(sit, tmp_path):
    rater = sit()
    rater.page.add_init_script(
        "Storage.prototype.setItem = () => { throw new Error('full'); }"
    )
    rater.page.reload()
    rater.button("Start").click()
    rater.press(3)
    status = rater.page.get_by_role("status")
    assert "keeps nothing" in status.inner_text()
    assert rater.heading() == "Picture 2 of 4"


def test_a_live_study_ends_with_its_results(sit, tmp_path):
    rater = sit()
    page = rater.page
    study, key = rater.study, rater.key
    columns = {"PSNR (dB)": {"alpha": "31.07", "beta": "29.40"}}
    frame = opinion.live(study, key, columns).data
    assert "alpha" not in frame and "31.07" not in frame
    (tmp_path / "book.html").write_text(
        f'<html data-theme="dark"><body><p>Book</p>{frame}</body></html>'
    )
    rater.open(tmp_path / "book.html")
    inside = page.frame_locator("iframe")
    inside.get_by_role("button", name="Start").click()
    while inside.locator("#trial").is_visible():
        source = inside.locator("#stage img").get_attribute("src")
        rater.press(SCORES[rater.method[source]])
    rows = inside.locator("tbody tr").all_inner_texts()
    cells = [row.split("\t") for row in rows]
    assert [row[0] for row in cells] == ["hr", "beta", "alpha", "nearest"]
    assert [row[1] for row in cells] == ["5.0", "3.0", "2.0", "1.0"]
    assert [row[3] for row in cells] == ["5", "3", "2", "1"]
    assert [row[4] for row in cells] == ["–", "29.40", "31.07", "–"]
    text = inside.locator("#results").inner_text()
    assert "above its coarse twin in 1 of 1 pictures" in text
    assert inside.get_by_text("beta: 3").count() == 1
    # As high as what it holds, and in the colors of the page around it.
    page.wait_for_timeout(200)
    height = page.locator("iframe").evaluate("f => f.offsetHeight")
    holds = page.frames[1].evaluate("document.body.scrollHeight")
    assert abs(height - holds) <= 2
    color = "getComputedStyle(document.body).backgroundColor"
    assert page.frames[1].evaluate(color) == "rgb(20, 24, 30)"
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.frames[1].wait_for_function(f"{color} === 'rgb(255, 255, 255)'")
    page.reload()
    assert inside.get_by_text("has answered 4 of 4").is_visible()


def test_what_is_saved_is_plain_json(sit, tmp_path):
    rater = sit()
    rater.button("Start").click()
    record = json.loads(rater.save("Save for now", tmp_path).read_text())
    assert set(record) == {
        "format",
        "study",
        "rater",
        "complete",
        "answers",
        "digest",
    }
    assert record["complete"] is False and record["study"] == rater.study["id"]

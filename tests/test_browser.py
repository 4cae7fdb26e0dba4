"""Every page of the book in Chromium, its sliders by hand, and in print."""

from contextlib import contextmanager
from importlib.resources import files

import pytest
from book_fixtures import PROJECT, TinyBook, load
from bs4 import BeautifulSoup
from pypdf import PdfReader

print_book = load(PROJECT / "tools/print_book.py")

pytestmark = pytest.mark.slow

LOOKS = [
    (width, scheme) for width in (1440, 390) for scheme in ("light", "dark")
]

PATIENCE = 120_000  # ms; a page takes one second where nothing else runs

# What a page looks like once everything on it is loaded and unfolded.
INSPECT = """async () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const images = [...document.querySelectorAll("article img")];
  for (const image of images) image.loading = "eager";
  await Promise.all(images.map((image) => image.decode().catch(() => 0)));
  if (window.MathJax?.startup) await MathJax.startup.promise;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = all(".sr-cell img, .sr-pane img").filter(
    (image) => image.offsetWidth && !image.closest(".sr-shrunk"));
  return {
    broken: images.filter((i) => !i.naturalWidth).map((i) => i.src),
    nameless: images.filter((i) => i.alt.trim().length < 5)
      .map((i) => i.src.slice(0, 80)),
    filtered: images.filter((i) => getComputedStyle(i).filter !== "none")
      .map((i) => i.src.slice(0, 80)),
    uneven: shown.filter((i) => i.offsetWidth % i.naturalWidth)
      .map((i) => `${i.alt}: ${i.offsetWidth} for ${i.naturalWidth}`),
    wide: document.documentElement.scrollWidth - innerWidth,
    formulas: all("article .math").length,
    unset: all("article .math").filter(
      (m) => !m.querySelector("mjx-container")).length,
    bad: all("mjx-merror").map((m) => m.textContent),
    links: all("a[href]").map((a) => a.href),
    ids: all("[id]").map((e) => e.id),
  };
}"""


AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
# Rules that hold for a page, whatever it is about, and where they fail.
# What was unfolded fades in; it is judged as it stays.
AUDIT = """async () => {
  const still = document.createElement("style");
  still.textContent = "* { animation: none !important; " +
    "transition: none !important; }";
  document.head.append(still);
  const { violations } = await axe.run({ preload: false });
  return violations.flatMap(({ id, nodes }) => nodes.map((node) =>
    `${id}: ${node.target} ${node.failureSummary}`));
}"""


@contextmanager
def looking(browser, home, width=1440, scheme="light"):
    """visit(name) -> (an open page, what went wrong while it was loaded)"""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        has_touch=width < 500,
    )
    context.set_default_timeout(PATIENCE)
    wrong = []

    def only_home(route):
        if route.request.url.startswith((home, "data:")):
            route.continue_()
        else:
            wrong.append(f"foreign: {route.request.url}")
            route.abort()

    def answered(response):
        if response.status >= 400:
            wrong.append(f"{response.status}: {response.url}")

    def said(line):
        if line.type == "error":
            wrong.append(line.text)

    context.route("**/*", only_home)
    context.on("weberror", lambda e: wrong.append(f"script: {e.error}"))
    context.on("console", said)
    context.on("requestfailed", lambda r: wrong.append(f"failed: {r.url}"))
    context.on("response", answered)
    page = context.new_page()

    def visit(name):
        wrong.clear()
        page.goto(f"{home}/{name}", wait_until="load")
        return page, wrong

    yield visit
    context.close()


def pages(html):
    """All but the redirection at the root."""
    found = (p.relative_to(html).as_posix() for p in html.rglob("*.html"))
    return sorted(p for p in found if not p.startswith(("_", "index.html")))


def faults_of(look):
    for fault in ("broken", "nameless", "filtered", "uneven"):
        if look[fault]:
            yield f"{fault}: {look[fault]}"
    for text in look["bad"]:
        yield f"formula: {text}"
    if look["unset"]:
        yield f"{look['unset']} formulas are not set"
    if look["wide"] > 0:
        yield f"{look['wide']} px wider than the window"


def move_sliders(page):
    """Move each slider of a page; yield what does not move."""
    for number, box in enumerate(page.locator(".sr-slider").all()):
        stage, knob = box.locator(".sr-stage"), box.locator("input")
        stage.scroll_into_view_if_needed()
        place = stage.bounding_box()
        y = place["y"] + min(50, place["height"] / 2)

        def at(share, place=place, y=y):
            return place["x"] + share * place["width"], y

        if page.viewport_size["width"] < 500:
            page.touchscreen.tap(*at(0.75))
        else:
            page.mouse.move(*at(0.5))
            page.mouse.down()
            page.mouse.move(*at(0.75))
            page.mouse.up()
        if not 73 < float(knob.input_value()) < 77:
            yield f"slider {number} stays at {knob.input_value()}"
        knob.press("Home")
        if knob.input_value() != "0":
            yield f"slider {number} ignores the keyboard"


def check_every_page(browser, home, html):
    faults, looks = [], {}
    for width, scheme in LOOKS:
        with looking(browser, home, width, scheme) as visit:
            for name in pages(html):
                page, wrong = visit(name)
                look = page.evaluate(INSPECT)
                found = [*wrong, *faults_of(look), *move_sliders(page)]
                if width == 1440:
                    page.evaluate(AXE)
                    found += page.evaluate(AUDIT)
                faults += [f"{name}, {width} px, {scheme}: {f}" for f in found]
                look["sliders"] = page.locator(".sr-slider").count()
                looks[name] = look
    return looks, faults


def dead_links(home, looks, html):
    """Links within the book that lead nowhere."""
    for name, look in looks.items():
        for link in look["links"]:
            address, _, anchor = link.partition("#")
            if not address.startswith(f"{home}/"):
                continue
            target = address.removeprefix(f"{home}/").partition("?")[0]
            known = looks.get(target, {}).get("ids")
            alive = (html / target).is_file()
            if alive and anchor and known is not None:
                alive = anchor in known
            if not alive:
                yield f"{name}: {link}"


def test_every_page(browser, built_book, serve):
    home = serve(built_book)
    looks, faults = check_every_page(browser, home, built_book)
    assert not faults, "\n".join(faults)
    dead = list(dead_links(home, looks, built_book))
    assert not dead, "\n".join(dead)
    assert len(looks) > 10
    assert sum(look["formulas"] for look in looks.values()) > 10
    assert sum(look["sliders"] for look in looks.values()) > 3


def test_pages_open_from_the_disk(browser, built_book):
    with looking(browser, built_book.as_uri()) as visit:
        for name in pages(built_book):
            if name != "search.html":
                page, wrong = visit(name)
                look = page.evaluate(INSPECT)
                assert not wrong, name
                assert not look["unset"] and not look["broken"], name


def test_search_finds(browser, built_book, serve):
    with looking(browser, serve(built_book)) as visit:
        page, _ = visit("book/index.html")
        page.keyboard.press("Control+k")
        page.keyboard.type("PixelShuffle")
        page.keyboard.press("Enter")
        page.wait_for_selector("#search-results a[href*='srresnet.html']")


def test_no_cell_shows_an_object(built_book):
    """As Markdown does that has nothing to say."""
    for page in (built_book / "book").glob("*.html"):
        assert "core.display.Markdown object" not in page.read_text(), page


def test_pages_are_small(built_book):
    size = sum(p.stat().st_size for p in built_book.rglob("*") if p.is_file())
    assert size < 40e6


# --- In print


@pytest.fixture(scope="module")
def pdf(browser, built_book, tmp_path_factory):
    target = tmp_path_factory.mktemp("print") / "book.pdf"
    print_book.print_book(built_book, target, browser)
    return PdfReader(target)


def outline_of(reader, items=None):
    for item in reader.outline if items is None else items:
        if isinstance(item, list):
            yield from outline_of(reader, item)
        else:
            yield item.title, reader.get_destination_page_number(item)


def test_what_a_page_cuts_off_is_found(browser):
    page = browser.new_page(viewport={"width": 600, "height": 400})
    page.set_content(
        "<article id=a><style>mjx-math { display: block }</style>"
        "<pre style='width: 9px; overflow: hidden'>long line</pre>"
        "<pre>short</pre><mjx-math style='width: 700px'>wide</mjx-math>"
        "<mjx-math style='width: 300px'><s style='margin-left: 500px;"
        " display: block; width: 200px'>content</s></mjx-math>"
        "<mjx-math style='width: 2px'>accent</mjx-math></article>"
    )
    assert page.evaluate(print_book.CUT_OFF) == [
        "a: PRE, long line",
        "a: MJX-MATH, wide",
        "a: MJX-MATH, content",
    ]
    page.close()


def test_pdf_is_the_whole_book(pdf, built_book):
    texts = [page.extract_text() for page in pdf.pages]
    outline = list(outline_of(pdf))
    for name in print_book.page_names(built_book):
        soup = BeautifulSoup((built_book / name).read_text(), "html.parser")
        title = soup.select_one("article h1")
        title.select_one(".headerlink").decompose()
        title = " ".join(title.get_text().split())
        (number,) = [n for text, n in outline if text == title]
        text = " ".join(texts[number].split()).replace("ﬁ", "fi")
        assert title in text
    for number, text in enumerate(texts, 1):
        assert text.split()[-1] == str(number)


def test_code_is_printed_whole(pdf, built_book):
    printed = "".join("".join(p.extract_text().split()) for p in pdf.pages)
    page = (built_book / "book/srgan.html").read_text()
    for code in BeautifulSoup(page, "html.parser").select(".input_area pre"):
        for line in code.get_text().splitlines():
            assert "".join(line.split()) in printed, line


def test_links_of_the_pdf_stay_inside(pdf):
    inside = 0
    for page in pdf.pages:
        for link in page.get("/Annots", ()):
            link = link.get_object()
            address = link.get("/A", {}).get("/URI", "")
            assert not address or address.startswith("https://"), address
            if "/Dest" in link:
                assert link["/Dest"].removeprefix("/") in {
                    n.removeprefix("/") for n in pdf.named_destinations
                }
                inside += 1
    assert inside > 300


# --- Sliders, on a page of our own

# A 1 x 1 PNG; the slider's own numbers say how large it is shown.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlE"
    "QVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def slider(name, panes, zoom):
    figures = "".join(
        f'<figure class="sr-pane"><img src="{PIXEL}" width="{100 * zoom}"'
        f' height="{100 * zoom}" alt="Picture {pane}">'
        f"<figcaption>{pane}</figcaption></figure>"
        for pane in panes
    )
    style = f"--w:100;--h:100;--zoom:{zoom}"
    box = f'<div class="sr-slider" style="{style}">{figures}</div>'
    return f'<div id="{name}">{box}</div>'


@pytest.fixture(scope="module")
def slider_book(tmp_path_factory):
    book = TinyBook(tmp_path_factory.mktemp("sliders"))
    sliders = "\n".join(
        (
            slider("two", "AB", 2),
            slider("three", "ABC", 2),
            slider("large", "AB", 4),
        )
    )
    book.page(f"# Page\n\n$x$\n\n```{{raw}} html\n{sliders}\n```\n")
    status, text = book.make()
    assert status == 0, text
    return book.html


@pytest.fixture
def show(browser, slider_book, serve):
    """show(slider, ...) -> its place on an open page"""
    contexts = []

    def start(name, width=1440, **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, **options
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(f"{serve(slider_book)}/book/page.html")
        place = page.locator(f"#{name}")
        place.scroll_into_view_if_needed()
        return place

    yield start
    for context in contexts:
        context.close()


def divider(place):
    return float(place.locator("input").input_value())


def test_slider_moves_by_mouse_and_keyboard(show):
    place = show("two")
    mouse, keyboard = place.page.mouse, place.page.keyboard
    stage = place.locator(".sr-stage").bounding_box()
    assert stage["width"] == stage["height"] == 200
    assert divider(place) == 50
    left, middle = stage["x"], stage["y"] + 100
    mouse.move(left + 100, middle)
    mouse.down()
    mouse.move(left + 20, middle)
    assert divider(place) == 10
    mouse.up()
    mouse.move(left + 180, middle)
    assert divider(place) == 10
    place.locator("input").focus()
    keyboard.press("End")
    assert divider(place) == 100
    keyboard.press("ArrowLeft")
    assert divider(place) == 99.5
    cut = "pane => getComputedStyle(pane).clipPath"
    assert "0.5%" in place.locator(".sr-left").evaluate(cut)


def test_slider_moves_by_touch(show):
    place = show("two", width=390, has_touch=True)
    stage = place.locator(".sr-stage").bounding_box()
    place.page.touchscreen.tap(stage["x"] + 150, stage["y"] + 50)
    assert divider(place) == 75


def test_slider_moves_under_a_finger(show):
    place = show("two", width=390, has_touch=True)
    stage = place.locator(".sr-stage").bounding_box()
    hand = place.page.context.new_cdp_session(place.page)

    def touch(kind, *xs):
        points = [{"x": stage["x"] + x, "y": stage["y"] + 50} for x in xs]
        hand.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
        )

    touch("touchStart", 100)
    for x in (80, 50, 20):
        touch("touchMove", x)
    touch("touchEnd")
    assert divider(place) == 10


def test_slider_of_three_never_shows_one_picture_twice(show):
    place = show("three")

    def shown():
        return [
            place.locator(f".sr-{side} figcaption").inner_text()
            for side in ("left", "right")
        ]

    assert shown() == ["A", "B"]
    left, right = place.locator("select").all()
    right.select_option("C")
    assert shown() == ["A", "C"]
    left.select_option("C")
    assert shown() == ["C", "A"]
    assert right.input_value() == "0"
    label = place.locator("input").get_attribute("aria-label")
    assert "C on the left, A on the right" in label


def test_zoom_is_lowered_to_a_whole_number_that_fits(show):
    place = show("large", width=390)
    assert place.locator(".sr-stage").bounding_box()["width"] == 300
    place.page.set_viewport_size({"width": 1440, "height": 900})
    place.page.wait_for_function(
        "document.querySelector('#large .sr-stage').offsetWidth === 400"
    )


@pytest.mark.parametrize("how", ["print", "no script"])
def test_pictures_stand_side_by_side(show, how):
    place = show("two", java_script_enabled=how == "print")
    if how == "print":
        place.page.emulate_media(media="print")
    a, b = (place.get_by_alt_text(f"Picture {n}") for n in "AB")
    assert a.bounding_box()["y"] == b.bounding_box()["y"]
    right = a.bounding_box()["x"] + a.bounding_box()["width"]
    assert right <= b.bounding_box()["x"]
    assert place.get_by_text("B", exact=True).is_visible()


def test_mathematics_is_set_without_a_network(show):
    show("two").page.wait_for_selector("article .math mjx-container")

"""Every page of the book in Chromium, and the sliders by hand."""

import re

import pytest
from book_fixtures import (  # noqa: F401
    TinyBook,
    browser,
    built_book,
    serve,
)

pytestmark = pytest.mark.slow

LOOKS = [
    (width, scheme) for width in (1440, 390) for scheme in ("light", "dark")
]

PATIENCE = 120_000  # ms; a page takes one second where nothing else runs

# What a page looks like once everything on it has been loaded.
INSPECT = """async () => {
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


def visit(browser, address, width=1440, scheme="light"):  # noqa: F811
    """(what the page looks like, what went wrong while it was loaded)"""
    home = re.match(r"\w+://[^/]*", address)[0]
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on(
        "console",
        lambda line: line.type == "error" and wrong.append(line.text),
    )
    page.on("requestfailed", lambda r: wrong.append(f"failed: {r.url}"))
    page.on(
        "response",
        lambda r: r.status >= 400 and wrong.append(f"{r.status}: {r.url}"),
    )

    def only_home(route):
        if route.request.url.startswith((home, "data:")):
            route.continue_()
        else:
            wrong.append(f"foreign: {route.request.url}")
            route.abort()

    context.route("**/*", only_home)
    page.goto(address, wait_until="load")
    look = page.evaluate(INSPECT)
    context.close()
    return look, wrong


def pages(html):
    """All but the redirection at the root."""
    found = (p.relative_to(html).as_posix() for p in html.rglob("*.html"))
    return sorted(p for p in found if not p.startswith(("_", "index.html")))


def check_every_page(browser, home, html):  # noqa: F811
    faults, looks = [], {}
    for name in pages(html):
        for width, scheme in LOOKS:
            look, wrong = visit(browser, f"{home}/{name}", width, scheme)
            wrong += [
                f"{fault}: {look[fault]}"
                for fault in ("broken", "nameless", "filtered", "uneven")
                if look[fault]
            ]
            wrong += [f"formula: {text}" for text in look["bad"]]
            if look["unset"]:
                wrong.append(f"{look['unset']} formulas are not set")
            if look["wide"] > 0:
                wrong.append(f"{look['wide']} px wider than the window")
            faults += [f"{name}, {width} px, {scheme}: {w}" for w in wrong]
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


def test_every_page(browser, built_book, serve):  # noqa: F811
    home = serve(built_book)
    looks, faults = check_every_page(browser, home, built_book)
    assert not faults, "\n".join(faults)
    dead = list(dead_links(home, looks, built_book))
    assert not dead, "\n".join(dead)
    assert len(looks) > 10
    assert sum(look["formulas"] for look in looks.values()) > 10


def test_pages_open_from_the_disk(browser, built_book):  # noqa: F811
    for name in pages(built_book):
        if name != "search.html":
            look, wrong = visit(browser, (built_book / name).as_uri())
            assert not wrong, name
            assert not look["unset"], name


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
def show(browser, slider_book, serve):  # noqa: F811
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

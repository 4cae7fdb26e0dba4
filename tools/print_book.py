"""Print the built book as one PDF: `make pdf`.

All pages are put into one document, links between them included, and Chromium
prints it. It prints twice: the first time tells on which page each chapter
begins, the second time the contents say so.
"""

import logging
import posixpath
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import urldefrag

from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, TextStringObject

from srgan_lib.files import atomic_write

logging.getLogger("pypdf").setLevel(logging.ERROR)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MARGIN = 16  # mm
WIDTH = round((210 - 2 * MARGIN) / 25.4 * 96)  # of an A4 page's text, pixels
STYLE = """
html { font-size: 13px; scroll-padding: 0; }
body { background: #fff; display: block; margin: 0; }
article { break-before: page; padding: 0 !important; }
article:first-of-type { break-before: auto; }
h1, h2, h3, h4, summary, caption, .caption { break-after: avoid; }
figure, .admonition, img, tr { break-inside: avoid; }
pre { break-inside: auto; font-size: 10.5px; overflow: visible !important;
  white-space: pre-wrap !important; overflow-wrap: anywhere; }
table { font-size: 11px; overflow-wrap: anywhere; width: 100%; }
.pst-scrollable-table-container, .output, div.math { overflow: visible; }
.headerlink, .copybtn, .toggle-details, details.hide > summary,
.prev-next-footer { display: none !important; }
details.hide { border: 0; }
figcaption { color: #222 !important; }
nav.contents a { display: flex; gap: 1em; justify-content: space-between; }
nav.contents { break-before: page; line-height: 1.9; }
"""
FOOTER = """<div style="font-size: 8px; width: 100%; text-align: center">
<span class="pageNumber"></span></div>"""
READY = """async () => {
  const images = [...document.images];
  await Promise.all(images.map((image) => image.decode()));
  await MathJax.startup.promise;
  await document.fonts.ready;
}"""
TITLES = """() => [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")]
  .filter((e) => e.offsetParent)
  .map((e) => e.innerText.replace(/\\s+/g, " ").trim())"""
# What would be cut off: text wider than its box, and anything beyond the edge.
CUT_OFF = """() => [...document.querySelectorAll("pre, table, img, mjx-math")]
  .filter((e) => {
    const box = e.getBoundingClientRect();
    const right = Math.max(box.right, box.left + e.scrollWidth);
    // An accent reaches out of the box of its formula, and is seen.
    const hides = e.tagName !== "MJX-MATH" &&
      e.clientWidth && e.scrollWidth > e.clientWidth + 1;
    return e.offsetParent && (hides || right > innerWidth + 1);
  })
  .map((e) => `${e.closest("article")?.id}: ${e.tagName}, ` +
    (e.alt ?? e.textContent).trim().slice(0, 60))"""


def page_names(html):
    """The pages of the book in order, as its sidebar has them."""
    root = "book/index.html"
    soup = BeautifulSoup((html / root).read_text(), "html.parser")
    links = soup.select("nav.bd-links a.internal")
    return [root] + [
        posixpath.normpath(posixpath.join("book", link["href"]))
        for link in links
        if not link["href"].startswith("#")
    ]


def anchor(name, fragment=""):
    """The name of a page, or of a place on it, within the one document."""
    page = name.removesuffix(".html").replace("/", "-")
    return f"{page}--{fragment}" if fragment else page


def article(html, name, names):
    """The text of a page, fit to stand in one document with the others."""
    soup = BeautifulSoup((html / name).read_text(), "html.parser")
    text = soup.select_one("article.bd-article")
    for useless in text.select(".headerlink, script"):
        useless.decompose()
    for element in text.select("[id]"):
        element["id"] = anchor(name, element["id"])
    for element in text.select("[for], [aria-describedby]"):
        for key in ("for", "aria-describedby"):
            element.attrs.pop(key, None)
    for details in text.select("details"):
        details["open"] = ""
    for image in text.select("img[src]"):
        if not image["src"].startswith("data:"):
            image["src"] = posixpath.normpath(
                posixpath.join(posixpath.dirname(name), image["src"])
            )
        image["loading"] = "eager"
    for link in text.select("a[href]"):
        target, fragment = urldefrag(link["href"])
        page = posixpath.join(posixpath.dirname(name), target)
        page = posixpath.normpath(page) if target else name
        if page in names:
            link["href"] = f"#{anchor(page, fragment)}"
        elif "://" not in target:
            link.unwrap()  # indices and downloads are not printed
    text["id"] = anchor(name)
    return text


def contents(articles, numbers):
    """Titles of the pages, with the page numbers that are known."""
    lines = [
        f'<a href="#{text["id"]}"><span>{text.h1.get_text()}</span>'
        f"<span>{numbers.get(text['id'], '')}</span></a>"
        for text in articles[1:]
    ]
    return f'<nav class="contents"><h2>Contents</h2>{"".join(lines)}</nav>'


def document(html, numbers):
    """The whole book as one page of HTML."""
    names = page_names(html)
    home = BeautifulSoup((html / names[0]).read_text(), "html.parser")
    articles = [article(html, name, names) for name in names]
    head = "".join(
        str(tag).replace('"../', '"')
        for tag in home.select(
            "head title, head link[rel=stylesheet], head style,"
            'script[src*="mathjax"], script[src*="sr.js"]'
        )
    ) + "".join(
        str(tag)
        for tag in home.select("script:not([src])")
        if "MathJax" in tag.get_text()
    )
    body = [str(articles[0]), contents(articles, numbers)]
    body += map(str, articles[1:])
    return (
        '<!DOCTYPE html><html lang="en" data-theme="light"><head>'
        f'<meta charset="utf-8">{head}<style>{STYLE}</style></head>'
        f'<body class="bd-content bd-article">{"".join(body)}</body></html>'
    )


def print_once(browser, html, target, numbers):
    page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
    page.set_default_timeout(300_000)
    page.emulate_media(media="print")
    with tempfile.NamedTemporaryFile(
        "w", dir=html, prefix="print-", suffix=".html", encoding="utf-8"
    ) as file:
        file.write(document(html, numbers))
        file.flush()
        page.goto(Path(file.name).as_uri(), wait_until="load")
        page.evaluate(READY)
        titles = page.evaluate(TITLES)
        cut_off = page.evaluate(CUT_OFF)
        if cut_off:
            sys.exit("Too wide for the page:\n" + "\n".join(cut_off))
        page.pdf(
            path=target,
            format="A4",
            margin=dict.fromkeys(
                ("top", "bottom", "left", "right"), f"{MARGIN}mm"
            ),
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            print_background=True,
            outline=True,
            tagged=True,
        )
    page.close()
    return titles


def destinations(target):
    """{anchor: page number} of all places that links in the PDF lead to."""
    reader = PdfReader(target)
    return {
        name.removeprefix("/"): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
    }


def name_outline(target, titles):
    """Give the outline its titles again: Chromium says some of them twice,
    where a heading was moved to the next page."""
    writer = PdfWriter(clone_from=target)
    titles = iter(titles)

    def walk(item):
        while item:
            item = item.get_object()
            item[NameObject("/Title")] = TextStringObject(next(titles))
            walk(item.get("/First"))
            item = item.get("/Next")

    walk(writer.root_object["/Outlines"].get("/First"))
    if next(titles, None) is not None:
        sys.exit("The PDF's outline lacks a heading.")
    writer.write(target)


def print_book(html, target, browser):
    print_once(browser, html, target, {})
    numbers = destinations(target)
    name_outline(target, print_once(browser, html, target, numbers))


def main(html, target):
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit("make pdf needs Chromium: apt install chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=program, args=["--no-sandbox"]
        )
        with atomic_write(target) as temporary:
            print_book(Path(html).resolve(), temporary, browser)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

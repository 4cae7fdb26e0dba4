"""The bundled photographs: small enough, large enough, free, credited."""

import json

import pytest
from PIL import Image

from srgan_lib.data_lists import PHOTOS, TRAIN_PHOTOS, VAL_PHOTOS

FILES = sorted(PHOTOS.glob("*.webp"))
CREDITS = json.loads((PHOTOS / "credits.json").read_text(encoding="utf-8"))
FREE = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
}


def test_sixteen_photographs_within_14_mb():
    assert len(FILES) == 16
    assert sum(path.stat().st_size for path in FILES) < 14e6


def test_every_photograph_is_in_one_set():
    names = sorted(TRAIN_PHOTOS + VAL_PHOTOS)
    assert names == [path.name for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_size_and_credit(path):
    with Image.open(path) as image:
        assert min(image.size) >= 400
        assert image.mode == "RGB"
        size = f"{image.width} x {image.height}"
    credit = CREDITS[path.name]
    assert FREE[credit["license"]] == credit["license_url"]
    assert credit["author"] and credit["title"]
    assert credit["source"].startswith("Debian package lomiri-wallpapers-")
    assert size in credit["changes"]


def test_the_credits_page_names_them_all():
    page = (PHOTOS / "CREDITS.md").read_text(encoding="utf-8")
    assert list(CREDITS) == [path.name for path in FILES]
    for name, credit in CREDITS.items():
        (row,) = [r for r in page.splitlines() if r.startswith(f"| {name}")]
        assert all(credit[key] in row for key in credit)

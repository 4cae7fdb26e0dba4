"""What comes with a photograph is kept; what cannot be kept is refused."""

import mimetypes
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from srgan_lib.errors import UserError
from srgan_lib.imresize import imresize
from srgan_lib.photographs import (
    JPEG_EXIF,
    JPEG_SIDE,
    SUFFIXES,
    Photograph,
    bleed,
    check_fits,
    enlarge_photograph,
    find_photographs,
    plan_outputs,
    read_photograph,
    write_photograph,
)

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MAKER, ORIENTATION, WIDTH, HEIGHT = 271, 274, 256, 257
CAMERA, TAKEN, CAMERA_WIDTH, CAMERA_HEIGHT = 34665, 36867, 40962, 40963
PLACE, NORTH = 34853, 1


def twice(image):
    """An enlargement that can be told by heart."""
    return image.repeat(2, axis=0).repeat(2, axis=1)


def passed_through(source, target):
    """Read, enlarge, write; what Pillow finds in the file then."""
    photograph = enlarge_photograph(read_photograph(source), twice)
    write_photograph(target, photograph)
    with Image.open(target) as picture:
        picture.load()
        return picture


def camera_exif(orientation):
    exif = Image.Exif()
    exif[MAKER], exif[ORIENTATION] = "a maker", orientation
    exif[WIDTH], exif[HEIGHT] = 9, 6
    camera = exif.get_ifd(CAMERA)
    camera[TAKEN] = "2017:07:21 12:00:00"
    camera[CAMERA_WIDTH], camera[CAMERA_HEIGHT] = 9, 6
    exif.get_ifd(PLACE)[NORTH] = "N"
    return exif.tobytes()


# --- colors --------------------------------------------------------------


def test_colors_are_enlarged(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    found = passed_through(tmp_path / "a.png", tmp_path / "b.png")
    assert found.mode == "RGB" and found.info == {}
    np.testing.assert_array_equal(found, twice(RGB))


@pytest.mark.parametrize("mode", ["L", "1"])
def test_gray_stays_gray(tmp_path, mode):
    gray = Image.fromarray(RGB).convert(mode)
    gray.save(tmp_path / "a.png")
    photograph = read_photograph(tmp_path / "a.png")
    assert photograph.gray and photograph.image.shape == (6, 9, 3)
    found = passed_through(tmp_path / "a.png", tmp_path / "b.png")
    assert found.mode == "L"
    np.testing.assert_array_equal(found, twice(np.asarray(gray.convert("L"))))


def test_a_palette_becomes_colors(tmp_path):
    palette = Image.fromarray(RGB).convert("P")
    palette.save(tmp_path / "a.png")
    found = passed_through(tmp_path / "a.png", tmp_path / "b.png")
    np.testing.assert_array_equal(
        found, twice(np.asarray(palette.convert("RGB")))
    )


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (Image.new("CMYK", (4, 4)), "colors of the kind CMYK"),
        (Image.new("LAB", (4, 4)), "colors of the kind LAB"),
        (Image.new("I;16", (4, 4)), "more than 8 bits"),
        (Image.new("F", (4, 4)), "more than 8 bits"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(tmp_path, picture, words):
    path = tmp_path / "a.tif"
    picture.save(path)
    with pytest.raises(UserError, match=words) as caught:
        read_photograph(path)
    assert str(path) in str(caught.value)


def test_a_broken_file_is_refused_by_name(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"a\.png is damaged"):
        read_photograph(path)


# --- alpha ---------------------------------------------------------------


def with_alpha(mode="RGBA"):
    alpha = np.full((6, 9), 255, np.uint8)
    alpha[:, :3], alpha[:, 3] = 0, 100
    picture = Image.fromarray(RGB).convert(mode[:-1])
    picture.putalpha(Image.fromarray(alpha))
    return picture, alpha


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_enlarged_by_bicubic_interpolation(tmp_path, mode, suffix):
    picture, alpha = with_alpha(mode)
    picture.save(tmp_path / f"a{suffix}")
    found = passed_through(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}")
    assert found.mode == mode
    np.testing.assert_array_equal(found.getchannel("A"), imresize(alpha, 2))


def test_a_transparent_palette_keeps_its_alpha(tmp_path):
    image = np.zeros((6, 9), np.uint8)
    image[2:, 2:] = 1
    palette = Image.fromarray(image, "P")
    palette.putpalette([0, 0, 0, 200, 10, 20])
    palette.save(tmp_path / "a.png", transparency=0)
    found = passed_through(tmp_path / "a.png", tmp_path / "b.png")
    assert found.mode == "RGBA"
    assert found.getpixel((0, 0))[3] == 0
    assert found.getpixel((17, 11)) == (200, 10, 20, 255)


def test_hidden_black_does_not_reach_the_rim(tmp_path):
    """A red disc on transparent black is red all over, also where seen."""
    rows, columns = np.mgrid[:16, :16]
    disc = np.hypot(rows - 7.5, columns - 7.5) < 5
    image = np.zeros((16, 16, 4), np.uint8)
    image[disc] = 250, 30, 30, 255
    Image.fromarray(image).save(tmp_path / "a.png")
    photograph = read_photograph(tmp_path / "a.png")
    large = enlarge_photograph(photograph, lambda i: imresize(i, 4))
    assert (large.image[large.alpha > 0] == [250, 30, 30]).all()
    black = imresize(photograph.image, 4)  # so the line above can fail
    assert black[large.alpha > 0].min() < 30


def test_bleeding_takes_the_nearest_seen_color():
    image = np.arange(15, dtype=np.uint8).reshape(1, 5, 3)
    alpha = np.array([[255, 0, 0, 0, 9]], np.uint8)
    seen = bleed(image, alpha)[0]
    assert [tuple(seen[k]) for k in (0, 1)] == [(0, 1, 2)] * 2
    assert [tuple(seen[k]) for k in (3, 4)] == [(12, 13, 14)] * 2
    for nothing in (np.zeros_like(alpha), np.full_like(alpha, 255)):
        np.testing.assert_array_equal(bleed(image, nothing), image)


def test_alpha_that_a_format_cannot_hold_is_refused(tmp_path):
    with_alpha()[0].save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"JPEG cannot hold .* RGBA; use .png"):
        passed_through(tmp_path / "a.png", tmp_path / "b.jpg")
    assert not (tmp_path / "b.jpg").exists()


# --- what stands beside the pixels ---------------------------------------


@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("target", SUFFIXES)
def test_profile_and_exif_are_kept(tmp_path, source, target):
    a, b = tmp_path / f"a{source}", tmp_path / f"b{target}"
    Image.fromarray(RGB).save(a, exif=camera_exif(6), icc_profile=PROFILE)
    found = passed_through(a, b)
    assert found.size == (12, 18)  # upright
    assert found.info["icc_profile"] == PROFILE
    with Image.open(b) as picture:
        exif = picture.getexif()
        camera, place = exif.get_ifd(CAMERA), exif.get_ifd(PLACE)
    assert ORIENTATION not in exif and exif[MAKER] == "a maker"
    assert (exif[WIDTH], exif[HEIGHT]) == (12, 18)
    assert camera[TAKEN] == "2017:07:21 12:00:00"
    assert (camera[CAMERA_WIDTH], camera[CAMERA_HEIGHT]) == (12, 18)
    assert place[NORTH] == "N"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied(tmp_path, orientation):
    """As its definition says: where row 0 and column 0 are seen."""
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: RGB[::-1].transpose(1, 0, 2),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: RGB[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    Image.fromarray(RGB).save(
        tmp_path / "a.png", exif=camera_exif(orientation)
    )
    found = passed_through(tmp_path / "a.png", tmp_path / "b.png")
    np.testing.assert_array_equal(found, twice(upright))


@pytest.mark.parametrize("damaged", [296, 0])  # ResolutionUnit, GPS version
def test_exif_of_the_wrong_type_is_left_out(tmp_path, damaged):
    """A number stored as text; all else is kept."""
    exif = Image.Exif()
    exif.load(camera_exif(6))
    exif[296], exif.get_ifd(PLACE)[0] = 2, b"\2"
    data = bytearray(exif.tobytes())
    kind = 3 if damaged else 1  # as it is written, and in text's place
    at = data.index(struct.pack(">HHL", damaged, kind, 1))
    data[at : at + 4] = struct.pack(">HH", damaged, 2)
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=bytes(data))
    found = passed_through(tmp_path / "a.jpg", tmp_path / "b.png")
    assert found.size == (12, 18)  # upright
    exif = found.getexif()
    assert exif[MAKER] == "a maker" and exif.get_ifd(PLACE)[NORTH] == "N"
    assert exif.get_ifd(CAMERA)[TAKEN] == "2017:07:21 12:00:00"
    assert damaged not in (exif if damaged else exif.get_ifd(PLACE))


# --- which files ---------------------------------------------------------


def test_a_folder_stands_for_the_images_in_it(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.heic", "notes.txt", ".d.png", "e"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.png").mkdir()
    found = find_photographs([tmp_path, tmp_path / "e", tmp_path / "a.jpg"])
    assert [p.name for p in found] == ["a.jpg", "b.PNG", "c.heic", "e"]


def test_what_an_image_is_does_not_depend_on_the_system(tmp_path, monkeypatch):
    """A slim container has no list of its own."""
    monkeypatch.setattr(mimetypes, "knownfiles", [])
    monkeypatch.setattr(mimetypes, "inited", False)
    (tmp_path / "a.webp").touch()
    assert find_photographs([tmp_path]) == [tmp_path / "a.webp"]


BLACK = np.zeros((1, 1, 3), np.uint8)


def black(height, width):
    """A photograph as large as one wants, which takes no memory."""
    return np.broadcast_to(BLACK, (height, width, 3))


def test_alpha_is_refused_before_the_work(tmp_path):
    photograph = Photograph(black(4, 4), alpha=black(4, 4)[..., 0])
    with pytest.raises(UserError, match=r"x.JPG: JPEG holds no alpha"):
        check_fits(tmp_path / "x.JPG", photograph, 4)
    check_fits(tmp_path / "x.png", photograph, 4)


def test_what_a_jpeg_cannot_hold_is_refused_before_the_work(tmp_path):
    """Where Pillow itself stops, and not a pixel or byte before."""

    def save(size, exif=b""):
        Image.new("L", size).save(tmp_path / "a.jpg", exif=exif)

    exif = Image.Exif()
    exif[305] = "x" * 60_000
    exif[305] += "x" * (JPEG_EXIF - len(exif.tobytes()))
    for side in (JPEG_SIDE, JPEG_SIDE + 1):
        for size in ((side, 1), (1, side)):
            photograph = Photograph(black(*size), exif=exif)
            check_fits(tmp_path / "a.png", photograph, 1)
            if side == JPEG_SIDE:
                check_fits(tmp_path / "a.jpg", photograph, 1)
                save(size, exif.tobytes())
                continue
            with pytest.raises(OSError):
                save(size)
            with pytest.raises(UserError, match=r"a\.JPG: .*65501.*use \.png"):
                check_fits(tmp_path / "a.JPG", photograph, 1)
    exif[305] += "x"
    with pytest.raises(ValueError, match="too long"):
        save((1, 1), exif.tobytes())
    with pytest.raises(UserError, match=r"EXIF of 65534 bytes .*use \.png"):
        check_fits(tmp_path / "a.jpeg", Photograph(BLACK, exif=exif), 1)


def test_a_tiff_beyond_4_gib_is_refused_before_the_work(tmp_path):
    image = black(10_000, 9_000)
    with pytest.raises(UserError, match=r"x.TIF: .* 36000 x 40000 .*use .png"):
        check_fits(tmp_path / "x.TIF", Photograph(image), 4)
    check_fits(tmp_path / "x.png", Photograph(image), 4)
    check_fits(tmp_path / "x.tif", Photograph(image), 3)
    check_fits(tmp_path / "x.tif", Photograph(image, gray=True), 4)
    alpha = image[..., 0]
    check_fits(tmp_path / "x.tif", Photograph(image, alpha, gray=True), 3)


def test_a_closed_folder_is_told_in_a_sentence(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"cannot be reached \(Permission"):
        find_photographs([tmp_path])
    beyond = tmp_path / "out"
    monkeypatch.setattr(Path, "stat", refuse)
    for look in (
        lambda: plan_outputs([tmp_path / "a.png"], beyond),
        lambda: find_photographs([beyond]),
    ):
        with pytest.raises(UserError, match=r"out cannot be reached"):
            look()


def test_a_photograph_under_another_name_is_not_overwritten(tmp_path):
    """As where the disk takes IMG.PNG and IMG.png for one file."""
    photograph = tmp_path / "IMG.PNG"
    photograph.touch()
    os.link(photograph, tmp_path / "IMG.png")
    with pytest.raises(UserError, match=r"IMG\.png is itself a photograph"):
        plan_outputs([photograph], tmp_path)


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(UserError, match="has no image files"):
        find_photographs([tmp_path])


def test_outputs_go_into_a_folder_or_are_one_file(tmp_path):
    a, b = tmp_path / "a.jpg", tmp_path / "b.webp"
    out = tmp_path / "out"
    assert plan_outputs([a, b], out) == {a: out / "a.png", b: out / "b.png"}
    assert plan_outputs([a], out / "x.tif") == {a: out / "x.tif"}
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert plan_outputs([a], folder) == {a: folder / "a.png"}


@pytest.mark.parametrize(
    ("names", "out", "words"),
    [
        (["a.jpg", "a.png"], "out", r"a\.jpg and .*a\.png would both become"),
        (["A.jpg", "a.png"], "out", r"A\.jpg and .*a\.png would both become"),
        (["a.jpg", "b.jpg"], "x.png", "one file, for 2 photographs"),
        (["a.png"], ".", r"a\.png is itself a photograph"),
        (["a.jpg", "a.png"], ".", r"a\.png is itself a photograph"),
        (["a.png"], "a.png", r"a\.png is itself a photograph"),
        (["a.png"], "x.bmp", "do not keep all"),
        (["a.png"], "x.webp", "do not keep all"),
        (["a.png"], "x.gif", "do not keep all"),
    ],
)
def test_outputs_that_would_lose_something_are_refused(
    tmp_path, names, out, words
):
    with pytest.raises(UserError, match=words):
        plan_outputs([tmp_path / name for name in names], tmp_path / out)

import base64
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, features

from srgan_lib.errors import UserError
from srgan_lib.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    denormalize_sr,
    modcrop,
    normalize_hr,
    normalize_lr,
    read_image,
    rgb_to_y,
    to_image,
    to_tensor,
    to_uint8,
    write_image,
)

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


# --- reading: what is handled ------------------------------------------------


def test_rgb_is_read_as_it_is(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    image = read_image(str(tmp_path / "a.png"))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_other_8_bit_modes_become_rgb(tmp_path, mode):
    picture = Image.fromarray(RGB).convert(mode)
    picture.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == mode
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_cmyk_becomes_rgb(tmp_path):
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red.save(tmp_path / "a.jpg", quality=100)
    image = read_image(tmp_path / "a.jpg").astype(int)
    assert np.abs(image - [255, 0, 0]).max() <= 2


def test_one_pixel(tmp_path):
    Image.fromarray(RGB[:1, :1]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB[:1, :1])


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png"), np.rot90(RGB, -1)
    )


def test_a_phone_jpeg_with_previews_is_one_picture(tmp_path):
    large, small = Image.fromarray(RGB), Image.fromarray(RGB[:3, :3])
    large.save(
        tmp_path / "a.mpo", save_all=True, append_images=[small], quality=95
    )
    assert Image.open(tmp_path / "a.mpo").n_frames == 2
    assert read_image(tmp_path / "a.mpo").shape == RGB.shape


# --- reading: what is refused ------------------------------------------------


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


def png_16_bit_rgb(path):
    """Pillow cannot write one, and reads it as 8 bits in silence."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(2 * (1 + 2 * 6))))
        + chunk(b"IEND", b"")
    )


def test_16_bits_are_refused(tmp_path):
    gray = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray.astype(np.float32)).save(tmp_path / "float.tif")
    png_16_bit_rgb(tmp_path / "rgb.png")
    for name in ("gray.png", "float.tif", "rgb.png"):
        assert "8 bits" in refusal(tmp_path / name)


DEEP = np.arange(12).reshape(2, 2, 3) * 5000


def ppm_plain():
    return b"P3 2 2 65535 " + " ".join(map(str, DEEP.ravel())).encode()


def tiff_16_bits_in_planes():
    """Which Pillow takes for 8 bits: its raw mode says R, G, B."""
    tags = {256: 2, 257: 2, 262: 2, 277: 3, 278: 2, 284: 2}
    entries = [(tag, 3, 1, value) for tag, value in tags.items()]
    end = 8 + 2 + 12 * (len(entries) + 3) + 4  # of the table of entries
    entries += [(258, 3, 3, end), (273, 4, 3, end + 6), (279, 4, 3, end + 18)]
    table = b"".join(struct.pack("<HHII", *e) for e in sorted(entries))
    offsets = [end + 30 + 8 * plane for plane in range(3)]
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(entries))
        + table
        + struct.pack("<I3H3I3I", 0, 16, 16, 16, *offsets, 8, 8, 8)
        + DEEP.transpose(2, 0, 1).astype("<u2").tobytes()
    )


def jpeg_2000(suffix):
    """Pillow writes 8 bits; here the codestream says 16."""
    encoded = io.BytesIO()
    Image.fromarray(RGB).save(encoded, "JPEG2000", no_jp2=suffix == "j2k")
    content = encoded.getvalue()
    assert content.count(b"\7\1\1" * 3) == 1
    return content.replace(b"\7\1\1" * 3, b"\x0f\1\1" * 3)


def avif_10_bits():
    """One pixel, by another program: Pillow writes 8 bits only."""
    return zlib.decompress(
        base64.b64decode(
            "eNpjYGBQSCupLEgsy0xjAAIQnZuZZpibmZjm62joBBR6nZtaksgAAYoZKTlFUD"
            "ZDQWZyCQMa4CvILMkFsxiBWC4zJz8ZxHEB8RkhoozCIBkg1sjMzEuDq5UCclKZ"
            "oLzEMgND5/ycfLBdWZkFRQVA2juzIDkfSItkFhekQu2DmskgUJBZkQkSYObi4g"
            "JSPIllhs6NDD4gIeHk/JyivOScCgYmIGRrAAqJZxbkJsKNYGRhZGpmATLVclMS"
            "S4QYuDgkGNheCAiYKBgJyH9vbxU9wKADlJ1g2mdxAADDpDNv"
        )
    )


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("plain.ppm", ppm_plain),
        ("a.ppm", lambda: b"P6 2 2 65535 " + DEEP.astype(">u2").tobytes()),
        (
            "less.ppm",
            lambda: b"P6 2 2 999 " + (DEEP // 99).astype(">u2").tobytes(),
        ),
        ("planes.tif", tiff_16_bits_in_planes),
        ("a.jp2", lambda: jpeg_2000("jp2")),
        ("a.j2k", lambda: jpeg_2000("j2k")),
        ("a.avif", avif_10_bits),
    ],
)
def test_more_than_8_bits_that_pillow_narrows_are_refused(
    tmp_path, name, make
):
    if name.endswith("avif") and not features.check("avif"):
        pytest.skip("this Pillow does not read AVIF")
    (tmp_path / name).write_bytes(make())
    with Image.open(tmp_path / name) as picture:
        assert picture.mode == "RGB"  # in silence
        picture.load()
    assert "8 bits" in refusal(tmp_path / name)


@pytest.mark.parametrize("suffix", ["jp2", "j2k", "avif", "ppm", "tga"])
def test_8_bits_of_the_same_kinds_are_read(tmp_path, suffix):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow does not read AVIF")
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}").shape == RGB.shape


def test_fewer_than_8_bits_are_read(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 15 \x0f\x00\x05")
    assert read_image(tmp_path / "a.ppm").tolist() == [[[255, 0, 85]]]
    header = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)  # 5, 6 and 5 bits
    start = struct.pack("<2sIHHI", b"BM", 70, 0, 0, 66)
    (tmp_path / "a.bmp").write_bytes(start + header + masks + b"\0\xf8\0\0")
    assert read_image(tmp_path / "a.bmp").tolist() == [[[255, 0, 0]]]


def test_a_kind_whose_bits_are_not_known_is_refused(tmp_path):
    """Such as SGI, of 16 bits too, and whatever Pillow learns to read."""
    Image.fromarray(RGB).save(tmp_path / "a.sgi")
    assert "is of the kind SGI, which is not read" in refusal(
        tmp_path / "a.sgi"
    )


def test_alpha_is_refused(tmp_path):
    for mode in ("RGBA", "LA"):
        Image.new(mode, (4, 4)).save(tmp_path / f"{mode}.png")
        assert "alpha" in refusal(tmp_path / f"{mode}.png")
    palette = Image.fromarray(RGB).convert("P")
    palette.save(tmp_path / "palette.png", transparency=0)
    assert "alpha" in refusal(tmp_path / "palette.png")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_frames_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    frames = [Image.new("RGB", (4, 4), (i, 99, 0)) for i in (0, 90, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert "animated" in refusal(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    refusal(path)


def test_a_flipped_byte_in_a_png_is_noticed(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, RGB)
    data = bytearray(path.read_bytes())
    data[-30] ^= 255  # in the pixels, before their checksum
    path.write_bytes(data)
    assert "damaged" in refusal(path)


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    assert "empty" in refusal(tmp_path / "empty.png")
    assert "not an image" in refusal(tmp_path / "text.png")
    assert "no such file" in refusal(tmp_path / "missing.png")
    assert "folder" in refusal(tmp_path)


def test_what_the_system_refuses_is_not_called_damaged(tmp_path, monkeypatch):
    assert "File name too long" in refusal(tmp_path / f"{300 * 'a'}.png")
    write_image(tmp_path / "a.png", RGB)

    def no_memory(*args):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", no_memory)
    assert "more memory than there is" in refusal(tmp_path / "a.png")


def test_one_tag_out_of_order_does_not_spoil_a_photograph(tmp_path):
    """A program wrote a word where EXIF wants a number."""
    exif = Image.Exif()
    exif[274] = 6  # Orientation: turn
    exif[305] = "a program"
    data = bytearray(exif.tobytes())
    at = (
        data.index(struct.pack(">HH", 305, 2))
        if data[6:8] == b"MM"
        else (data.index(struct.pack("<HH", 305, 2)))
    )
    order = ">" if data[6:8] == b"MM" else "<"
    data[at : at + 2] = struct.pack(f"{order}H", 296)  # ResolutionUnit
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=bytes(data))
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png"), np.rot90(RGB, -1)
    )


def test_an_image_bomb_is_refused(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "too many pixels" in refusal(tmp_path / "a.png")


# --- writing -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a", "a.bmp", "a.tif", "a.webp"])
def test_lossless_formats_come_back_unchanged(tmp_path, name):
    path = tmp_path / "new" / "folder" / name
    write_image(path, RGB)
    np.testing.assert_array_equal(read_image(path), RGB)
    assert os.listdir(path.parent) == [name]


def test_the_suffix_tells_the_format(tmp_path):
    for name, kind in (("a", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP")):
        write_image(tmp_path / name, RGB)
        assert Image.open(tmp_path / name).format == kind
    with pytest.raises(UserError, match=r"unknown kind of image"):
        write_image(tmp_path / "a.xyz", RGB)


def test_grayscale_is_written_as_one_channel(tmp_path):
    write_image(tmp_path / "a.png", RGB[:, :, 0])
    assert Image.open(tmp_path / "a.png").mode == "L"


@pytest.mark.parametrize(
    "image",
    [RGB / 255, RGB[:, :, :2], RGB[None], RGB[:0], RGB.astype(np.int64)],
)
def test_what_is_no_image_array_is_not_written(tmp_path, image):
    with pytest.raises(ValueError, match="uint8"):
        write_image(tmp_path / "a.png", image)
    assert os.listdir(tmp_path) == []


FULL_DISK = """
import resource, sys
import numpy as np
from srgan_lib.errors import UserError
from srgan_lib.images import write_image
noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
for path in sys.argv[1:]:
    try:
        write_image(path, noise)
    except UserError as error:
        print(error)
"""


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    pytest.importorskip("resource")
    names = ["a.bmp", "a.jpg", "a.png", "a.tif", "a.webp"]
    paths = [tmp_path / name for name in names]
    for path in paths:
        write_image(path, RGB)
    command = [sys.executable, "-c", FULL_DISK, *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), done.stderr
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"{path} cannot be written")
        assert read_image(path).shape == RGB.shape
    assert sorted(os.listdir(tmp_path)) == names


def test_an_image_too_wide_for_its_format(tmp_path):
    wide = np.zeros((1, 70000), np.uint8)
    with pytest.raises(UserError, match=r"JPEG cannot hold .* use \.png"):
        write_image(tmp_path / "a.jpg", wide)
    assert os.listdir(tmp_path) == []


# --- arrays and tensors ------------------------------------------------------


def test_modcrop():
    assert modcrop(RGB, 4).shape == (4, 8, 3)
    assert modcrop(RGB[:, :, 0], 3).shape == (6, 9)
    with pytest.raises(ValueError, match="too small"):
        modcrop(RGB, 7)


def test_to_uint8_rounds_halves_away_from_zero_and_clips():
    below = np.nextafter(0.5, 0)
    values = [-3, -0.5, below, 0.5, 1.5, 2.5, 254.5, 255.4, 300, np.inf]
    expected = [0, 0, 0, 1, 2, 3, 255, 255, 255, 255]
    for x in (np.array(values), torch.tensor(values, dtype=torch.float64)):
        result = to_uint8(x)
        assert type(result) is type(x)
        assert result.dtype in (np.uint8, torch.uint8)
        assert result.tolist() == expected
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(np.array([1.0, np.nan]))


def test_every_level_survives_the_way_through_the_network_range():
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    hr = normalize_hr(levels)
    assert hr.dtype == torch.float32
    assert (hr.min(), hr.max()) == (-1, 1)
    assert torch.equal(denormalize_sr(hr), levels)
    assert denormalize_sr(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]
    assert denormalize_sr(torch.zeros(1).bfloat16()).item() == 128


def test_normalize_lr_is_imagenets():
    lr = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    result = normalize_lr(lr)
    assert result.dtype == torch.float32
    for c in range(3):
        expected = (lr[:, c] / 255 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]
        torch.testing.assert_close(result[:, c], expected)


@pytest.mark.parametrize("convert", [normalize_lr, normalize_hr])
def test_a_range_is_not_normalized_twice(convert):
    with pytest.raises(ValueError, match="uint8"):
        convert(torch.zeros(3, 4, 4))


def test_array_to_tensor_and_back():
    tensor = to_tensor(RGB)
    assert tensor.shape == (3, 6, 9)
    assert tensor.dtype == torch.uint8
    assert tensor[2, 1, 4] == RGB[1, 4, 2]
    np.testing.assert_array_equal(to_image(tensor), RGB)


def test_luma_of_known_colors():
    # ITU-R BT.601: black, white, red, green, blue.
    colors = [[0] * 3, [255] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    image = np.array([colors], dtype=np.uint8)
    real = [16, 235, 81.481, 144.553, 40.966]
    np.testing.assert_allclose(rgb_to_y(image, quantize=False)[0], real)
    assert rgb_to_y(image)[0].tolist() == [16, 235, 81, 145, 41]


def test_luma_of_every_strip_and_of_cropped_views():
    image = np.random.default_rng(2).integers(0, 256, (50, 7, 3), np.uint8)
    image = image[3:-4, 1:-1]
    y = 16 + image @ [65.481, 128.553, 24.966] / 255
    np.testing.assert_allclose(rgb_to_y(image, quantize=False), y)
    with pytest.raises(ValueError, match="uint8"):
        rgb_to_y(image / 255)

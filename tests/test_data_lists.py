"""Sets are found where they lie; lists hold what they promise."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_lib import data_lists
from srgan_lib.data_lists import (
    BUNDLED5,
    SETS,
    create_data_list,
    data_list,
    data_root,
    find_images,
    how_to_get,
    is_present,
    read_data_list,
    status,
)
from srgan_lib.errors import UserError
from srgan_lib.images import read_image, write_image
from srgan_lib.imresize import imresize


def picture(path, height=16, width=24, seed=0):
    """Write a random picture; its folder is made."""
    pixels = np.random.default_rng(seed).integers(
        0, 256, (height, width, 3), np.uint8
    )
    write_image(path, pixels)
    return path


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data root, a workspace beside it, sets of two images."""
    root, here = tmp_path / "root", tmp_path / "here"
    root.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("SRGAN_DATA", str(root))
    for name in ("Set5", "DIV2K", "BSDS"):
        monkeypatch.setitem(SETS, name, replace(SETS[name], count=2))
    return root


def set5(root, folder="benchmark/Set5", lr=True):
    """Two images in the layout of the benchmark archive."""
    for seed, name in enumerate(("baby", "bird")):
        hr = picture(root / folder / "HR" / f"{name}.png", seed=seed)
        if lr:
            twin = root / folder / "LR_bicubic" / "X4" / f"{name}x4.png"
            write_image(twin, imresize(read_image(hr), 0.25))
    return root / folder


# --- where they are ------------------------------------------------------


def test_data_root_is_the_absolute_srgan_data_else_data(root, monkeypatch):
    assert data_root() == root
    monkeypatch.setenv("SRGAN_DATA", "some/where")
    with pytest.raises(UserError, match="relative path 'some/where'"):
        data_root()
    monkeypatch.delenv("SRGAN_DATA")
    assert data_root() == Path.cwd() / "data"


@pytest.mark.parametrize("deeper", ["", "benchmark", "any name"])
def test_official_layout_also_one_folder_deeper(root, deeper):
    folder = set5(root / deeper)
    assert find_images("Set5") == [
        (folder / "HR/baby.png", folder / "LR_bicubic/X4/babyx4.png"),
        (folder / "HR/bird.png", folder / "LR_bicubic/X4/birdx4.png"),
    ]


def test_div2k_unpacked_into_folders_of_the_archives_names(root):
    hr = root / "DIV2K_train_HR/DIV2K_train_HR"
    lr = root / "DIV2K_train_LR_bicubic_X4/DIV2K_train_LR_bicubic/X4"
    for name in ("0001", "0002"):
        picture(hr / f"{name}.png")
        picture(lr / f"{name}x4.png", 4, 6)
    assert data_list("DIV2K") == [
        (hr / "0001.png", lr / "0001x4.png"),
        (hr / "0002.png", lr / "0002x4.png"),
    ]


def test_a_half_unpacked_hidden_folder_is_not_a_set(root):
    set5(root / ".unpacking-benchmark.tar")
    assert not is_present("Set5")


def test_a_set_of_two_folders_needs_both(root):
    picture(root / "BSDS500/train/1.jpg")
    assert not is_present("BSDS")
    picture(root / "BSDS500/test/2.jpg")
    assert [hr.name for hr, _ in find_images("BSDS")] == ["1.jpg", "2.jpg"]


def test_the_bundled_sets_are_there(root):
    assert len(find_images("Photos")) == 14
    assert len(find_images("PhotosVal")) == 2
    assert [hr.name for hr, _ in find_images("Bundled5")] == sorted(BUNDLED5)
    training = {hr for hr, _ in find_images("Photos")}
    assert training.isdisjoint(hr for hr, _ in find_images("PhotosVal"))


def test_an_unknown_name_lists_the_good_ones(root):
    with pytest.raises(UserError, match=r"'Set6'.*Photos, .*BSDS"):
        find_images("Set6")


def test_a_missing_set_says_how_to_get_it(root):
    with pytest.raises(UserError, match="`srgan data Set5` downloads it"):
        find_images("Set5")
    for name in SETS:
        assert "\n" not in how_to_get(name)
    assert str(root / "BSDS500") in how_to_get("BSDS")


def test_status_tells_of_every_set(root):
    set5(root)
    rows = {row["name"]: row for row in status()}
    assert list(rows) == list(SETS)
    assert rows["Set5"]["images"] == 2 and rows["Set5"]["how_to_get"] is None
    assert rows["B100"]["images"] == 0 and rows["B100"]["count"] == 100
    assert "srgan data B100" in rows["B100"]["how_to_get"]


def test_notes_and_hidden_files_are_passed_over(root):
    folder = set5(root) / "HR"
    for name in ("readme.txt", ".DS_Store", "Thumbs.db", "._baby.png"):
        (folder / name).write_text("no image")
    assert len(data_list("Set5")) == 2


def test_a_link_to_nothing_is_passed_over(root):
    (set5(root) / "HR/gone.png").symlink_to("nowhere.png")
    assert len(data_list("Set5")) == 2


def test_an_empty_folder_is_no_set(root):
    (root / "benchmark/Set5/HR").mkdir(parents=True)
    with pytest.raises(UserError, match="Set5 is not there"):
        data_list("Set5")


def test_a_set_that_is_incomplete_warns(root, monkeypatch):
    monkeypatch.setitem(SETS, "Set5", replace(SETS["Set5"], count=5))
    set5(root)
    with pytest.warns(UserWarning, match="2 images here, not the 5"):
        find_images("Set5")


# --- HR and LR that do not fit -------------------------------------------


def test_another_count_of_lr_images_is_refused(root):
    folder = set5(root)
    (folder / "LR_bicubic/X4/birdx4.png").unlink()
    with pytest.raises(UserError, match=r"2 HR images .* 1 LR images"):
        data_list("Set5")


def test_an_lr_image_of_another_name_is_refused(root):
    lr = set5(root) / "LR_bicubic/X4"
    (lr / "birdx4.png").rename(lr / "birdx3.png")
    with pytest.raises(UserError, match=r"lacks the LR image birdx4\.png"):
        data_list("Set5")


def test_an_lr_image_of_another_size_is_refused(root):
    lr = set5(root) / "LR_bicubic/X4/birdx4.png"
    picture(lr, 5, 6)
    with pytest.raises(UserError, match=r"birdx4\.png is 6 x 5 .*24 x 16"):
        data_list("Set5")


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_an_image_that_is_none_is_refused_by_name(root, content):
    (set5(root) / "HR/bird.png").write_bytes(content)
    with pytest.raises(UserError, match=r"bird\.png"):
        data_list("Set5")
    with pytest.raises(UserError, match=r"bird\.png"):
        data_list("Set5", scale=2)  # whose twins have to be made


# --- twins ---------------------------------------------------------------


def test_missing_twins_are_made_by_imresize_in_the_workspace(root):
    folder = set5(root, lr=False)
    picture(folder / "HR/bird.png", 19, 26)  # no multiples of 4
    pairs = data_list("Set5")
    assert [lr.name for _, lr in pairs] == ["babyx4.png", "birdx4.png"]
    assert pairs[1][1].parent == Path.cwd() / "data/lists/Set5/X4"
    cropped = read_image(pairs[1][0])[:16, :24]
    np.testing.assert_array_equal(
        read_image(pairs[1][1]), imresize(cropped, 0.25)
    )
    assert not list(root.rglob("*x4.png"))  # the root may be read-only


def test_twins_are_kept_until_their_hr_file_changes(root):
    hr = set5(root, lr=False) / "HR/bird.png"
    (_, other), (_, lr) = data_list("Set5")
    os.utime(lr, ns=(0, 0))
    os.utime(other, ns=(0, 0))
    before = read_image(lr)
    data_list("Set5")
    assert lr.stat().st_mtime_ns == 0
    picture(hr, seed=7)
    data_list("Set5")
    assert other.stat().st_mtime_ns == 0
    assert not np.array_equal(read_image(lr), before)


def test_an_interruption_keeps_the_twins_made_so_far(root, monkeypatch):
    set5(root, lr=False)
    shrink, made = data_lists.shrink, []

    def interrupted(hr, scale):
        if made:
            raise KeyboardInterrupt
        made.append(hr.name)
        return shrink(hr, scale)

    monkeypatch.setattr(data_lists, "shrink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data_list("Set5")
    monkeypatch.setattr(data_lists, "shrink", shrink)
    first = Path("data/lists/Set5/X4/babyx4.png")
    os.utime(first, ns=(0, 0))
    assert len(data_list("Set5")) == 2
    assert first.stat().st_mtime_ns == 0


def test_two_images_of_one_name_are_refused(root):
    picture(root / "BSDS500/train/1.jpg")
    picture(root / "BSDS500/test/1.png")
    with pytest.raises(UserError, match="Two HR images are called 1"):
        data_list("BSDS")


def test_an_image_too_small_to_shrink_is_refused(root):
    picture(set5(root, lr=False) / "HR/bird.png", 3, 24)
    with pytest.raises(UserError, match=r"bird\.png is smaller than 4"):
        data_list("Set5")


def test_an_image_that_lies_on_its_side_gets_an_upright_twin(root):
    hr = root / "benchmark/Set5/HR/phone.jpg"
    set5(root, lr=False)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to see it
    Image.new("RGB", (24, 16)).save(hr, exif=exif)
    (hr.parent / "bird.png").unlink()
    lr = data_list("Set5")[1][1]
    assert read_image(lr).shape == (6, 4, 3)


# --- CSV -----------------------------------------------------------------


def test_the_csv_has_a_header_and_absolute_paths(root):
    set5(root)
    path = create_data_list("Set5")
    assert path == Path.cwd() / "data/lists/Set5_X4.csv"
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["hr", "lr"]
    assert all(Path(p).is_absolute() for row in rows[1:] for p in row)
    assert len(rows) == 3


@pytest.mark.parametrize(
    "name", ["a b", "a,b", 'a "b"', "é 照片", "'a'", "a\nb", " a "]
)
def test_names_survive_the_csv(root, name):
    folder = set5(root, lr=False) / "HR"
    (folder / "bird.png").rename(folder / f"{name}.png")
    assert folder / f"{name}.png" in dict(data_list("Set5"))


def test_names_that_are_no_utf8_survive_the_csv(root):
    folder = set5(root, lr=False) / "HR"
    strange = os.fsdecode(os.fsencode(folder) + b"/\xff.png")
    try:
        os.rename(folder / "bird.png", strange)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert Path(strange) in dict(data_list("Set5"))


def test_a_csv_naming_a_missing_file_is_refused(root):
    folder = set5(root)
    path = create_data_list("Set5")
    (folder / "HR/bird.png").unlink()
    with pytest.raises(
        UserError, match=r"Set5_X4\.csv, line 3: .*HR/bird\.png is missing"
    ):
        read_data_list(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with the line 'hr,lr'"),
        ("a,b\n", "must begin with the line 'hr,lr'"),
        ("hr,lr\n", "lists no images"),
        ("hr,lr\na\n", "line 2: there must be two paths, HR and LR, not 1"),
    ],
)
def test_a_csv_of_another_form_is_refused(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_data_list(path)


def test_a_csv_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such list"):
        read_data_list(tmp_path / "list.csv")

"""Files that are there whole, or as they were before."""

import os
from pathlib import Path

import pytest

from srgan_lib.errors import UserError
from srgan_lib.files import atomic_write, read_json, write_json, write_text


def test_an_error_in_the_middle_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), atomic_write(path) as temporary:
            assert temporary.parent == tmp_path
            temporary.write_text("half")
            raise error
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["a.txt"]
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_about_another_file_is_not_ours(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "missing").read_text()


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"file/a\.png cannot be written"):
        write_text(tmp_path / "file/a.png", "new")
    with pytest.raises(UserError, match=r"folder\.png is a folder"):
        write_text(tmp_path / "folder.png", "new")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


def test_a_folder_that_refuses_everything_is_named(tmp_path, monkeypatch):
    """Also the clearing up, as on a disk that can only be read."""

    def refused(*args, **options):
        raise PermissionError(13, "Permission denied", None)

    monkeypatch.setattr(Path, "write_text", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(UserError, match=r"a\.txt cannot be written .Permiss"):
        write_text(tmp_path / "a.txt", "new")


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "a.json", tmp_path / "there" / "b.json"
    link.symlink_to(target)
    write_json(link, {"a": 1})
    assert link.is_symlink() and read_json(target) == {"a": 1}
    assert os.listdir(tmp_path / "there") == ["b.json"]


def test_what_is_missing_or_cut_short_is_empty(tmp_path):
    path = tmp_path / "a.json"
    assert read_json(path) == {}
    write_json(path, {"ä": [1]})
    assert read_json(path) == {"ä": [1]}
    path.write_bytes(path.read_bytes()[:-4])
    assert read_json(path) == {}

"""The command line: what it prints, and mistakes told in one line."""

import functools
import re
import subprocess
import sys

import numpy as np
import pytest
from easydict import EasyDict
from PIL import Image
from tiny import Features, smooth_image, tiny_config, write_pictures

from srgan_lib import __main__ as cli
from srgan_lib import experiments, inference, losses, training
from srgan_lib.data_lists import SETS, ImageSet
from srgan_lib.images import read_image, write_image

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def srgan(monkeypatch, capsys):
    """srgan("runs", ...) -> (exit code, standard output, standard error).

    As a shell sees it: a message given to sys.exit is an error's, code 1.
    """

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["srgan", *map(str, arguments)])
        code, message = 0, ""
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
            if isinstance(code, str):
                code, message = 1, code + "\n"
        printed = capsys.readouterr()
        return code, printed.out, printed.err + message

    return call


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty workspace, and a data root without downloaded sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRGAN_DATA", str(tmp_path / "root"))
    monkeypatch.delenv("SRGAN_PROFILE", raising=False)
    return tmp_path


@pytest.fixture
def tiny(here, monkeypatch):
    """The profile `tiny`, of two short runs on a set of two pictures."""
    monkeypatch.setattr(training, "load_features", lambda stage: Features())
    monkeypatch.setattr(losses, "EfficientNetFeatures", Features)
    monkeypatch.setattr(cli, "EfficientNetFeatures", Features)
    write_pictures(here / "pictures")
    tiny_set = ImageSet("test", 2, (here / "pictures",))
    monkeypatch.setitem(SETS, "Tiny", tiny_set)
    config = tiny_config(
        first={"network": "srresnet", "epochs": 1},
        second={"network": "srgan", "epochs": 1, "start": "first"},
    )
    config.name, config.val_sets = "tiny", ["Tiny"]
    config.train_sets = config.test_sets = ["Tiny"]
    monkeypatch.setattr(cli, "load_profile", lambda name: config)
    return config


def one_line(text):
    return text.startswith("srgan: ") and text.count("\n") == 1


# --- mistakes ------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("experiments", "--profile", "quik"), "no profile 'quik'"),
        (("runs", "--profile", "quik"), "quick, reference, smoke"),
        (("train", "SRGAN", "--profile", "smoke"), "has no run 'SRGAN'"),
        (("data", "Set6"), "no image set 'Set6'"),
        (("data", "Photos", "Set6"), "no image set 'Set6'"),
        (("evaluate", "bicubic", "Set6"), "no image set 'Set6'"),
        (("evaluate", "bicubic", "Set5"), "Set5 is not there"),
        (("evaluate", "nothing"), "no generator 'nothing'"),
        (("upscale", "a.png", "-o", "out", "--model", "x"), "generator 'x'"),
        (("experiments", "--profile", "course"), "`srgan data DIV2K`"),
    ],
)
def test_a_mistake_is_told_in_one_line(srgan, here, arguments, words):
    code, out, error = srgan(*arguments)
    assert code == 1 and out == ""
    assert one_line(error) and words in error


def test_no_traceback_reaches_the_terminal(here):
    """The same as a real process sees it."""
    found = subprocess.run(
        [sys.executable, "-m", "srgan_lib", "runs", "--profile", "quik"],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1 and found.stdout == ""
    assert one_line(found.stderr) and "quik" in found.stderr


@pytest.mark.parametrize(
    "arguments", [("nothing",), ("train",), ("upscale", "a", "--tile", "1")]
)
def test_a_wrong_usage_is_code_2(srgan, here, arguments):
    code, _, error = srgan(*arguments)
    assert code == 2 and "Usage" in error and "Traceback" not in error


def test_help_lists_the_commands(srgan):
    _, out, _ = srgan("--help")
    for command in (
        "experiments",
        "train",
        "data",
        "evaluate",
        "upscale",
        "export",
    ):
        assert command in out


@pytest.mark.parametrize(("signum", "code"), [(2, 130), (15, 143)])
def test_an_interruption_is_told_in_one_line(
    srgan, here, monkeypatch, signum, code
):
    def interrupted(config):
        raise training.Interrupted(signum, here / "checkpoint.pt")

    monkeypatch.setattr(experiments, "run_experiments", interrupted)
    found, _, error = srgan("experiments", "--profile", "smoke")
    assert found == code and one_line(error)
    assert "checkpoint.pt; start again to go on" in error


# --- runs ----------------------------------------------------------------


def test_a_dry_run_says_what_why_and_how_long(srgan, tiny, here):
    code, out, _ = srgan("experiments", "--dry-run")
    assert code == 0
    first, second = out.splitlines()
    for line, name in ((first, "first"), (second, "second")):
        assert line.startswith(f"{name}: train, for it has not been trained")
        assert "about " in line and line.endswith("s")
    assert not (here / "runs").exists()
    srgan("experiments")
    _, out, _ = srgan("experiments", "--dry-run")
    assert out.splitlines() == [
        "first: finished, for it is up to date",
        "second: finished, for it is up to date",
    ]


def test_a_dry_run_of_faults(srgan, tiny, here):
    tiny.faults = EasyDict(
        srresnet="first", srresnet_epochs=1, srgan="second", srgan_epochs=1
    )
    code, out, error = srgan("experiments", "--dry-run")
    assert code == 0, error
    *_, control, fault, _ = out.splitlines()
    assert control == "right-SRGAN: snapshot, for it is second after epoch 1"
    assert fault.startswith("random-features: train, for it has not been")


def test_the_book_needs_the_runs_of_the_case(srgan, tiny, here):
    code, _, error = srgan("experiments", "--for-book")
    assert code == 1 and one_line(error)
    assert "profile tiny has no SRResNet-10; train it with" in error
    assert not (here / "runs").exists()


def test_experiments_train_and_measure(srgan, tiny, here):
    code, out, _ = srgan("experiments")
    assert code == 0
    assert f"3 methods stand in {here / 'runs' / 'tiny'}" in out
    assert (here / "runs/tiny/second/metrics.json").exists()


def test_train_trains_what_a_run_begins_from(srgan, tiny, here):
    code, out, _ = srgan("train", "second")
    assert code == 0 and "second stands in" in out
    for name in ("first", "second"):
        assert (here / f"runs/tiny/{name}/weights.safetensors").exists()


def test_runs_are_listed_with_their_state(srgan, tiny):
    """The very cells: a table that is off by a column is a wrong one."""

    def rows():
        heading, *lines = srgan("runs")[1].splitlines()
        assert heading.split()[-3:] == ["Tiny", "to", "do"]
        return [re.split(" {2,}", line) for line in lines]

    first, second = rows()
    new = ["-", "-", "-", "it has not been trained"]
    assert first == ["first", "train", "0 / 3", *new]
    srgan("train", "first")
    (_, state, steps, spent, best, figures, todo), second = rows()
    assert (state, steps) == ("finished", "3") and spent.endswith(" s")
    (record,) = experiments.read_result(
        experiments.runs_folder(tiny) / "first"
    ).validation
    assert best == f"{record['psnr']:.2f} dB (1)"
    assert (figures, todo) == ("-", "measure on Tiny")
    assert second == ["second", "train", "0 / 3", *new]
    srgan("experiments")
    folder = experiments.runs_folder(tiny) / "second"
    mean = experiments.read_result(folder).metrics.Tiny.mean
    *_, figures, todo = rows()[1]
    assert figures == f"{mean.psnr:.2f} dB, {mean.perceptual:.4f}"
    assert todo == "nothing"
    tiny.srgan.beta = 0.5
    first, second = rows()
    assert first[-1] == "nothing"
    assert second[1:] == [
        *("train", "0 / 3", "-", "-", "-"),
        "its settings changed (srgan)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.4, "0 s"), (40, "40 s"), (89, "89 s"), (90, "2 min")),
        *((600, "10 min"), (3599, "1 h 00 min"), (3900, "1 h 05 min")),
    ],
)
def test_durations(seconds, text):
    assert cli.duration(seconds) == text


# --- sets, measuring, enlarging ------------------------------------------


def test_data_without_names_tells_of_every_set(srgan, here):
    code, out, _ = srgan("data")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0 and list(rows) == list(SETS)
    assert rows["Photos"].endswith("14 images")
    assert "`srgan data Set5` downloads it" in rows["Set5"]


def test_data_lists_a_set_that_is_there(srgan, here):
    code, out, _ = srgan("data", "PhotosVal")
    assert code == 0
    assert f"PhotosVal is at {here}/data/lists/PhotosVal_X4.csv" in out


def test_bicubic_on_the_bundled_set(srgan, here):
    """Rows are the set's, columns those of METRICS; figures are not ours."""
    code, out, _ = srgan("evaluate", "bicubic", "Bundled5")
    heading, row = out.splitlines()
    assert code == 0 and heading.startswith("set ")
    name, *figures = row.split()
    psnr, ssim, daala, perceptual, spectrum = map(float, figures)
    assert name == "Bundled5"
    assert 24 < psnr < 32 and 0.6 < ssim < daala + 0.1 < 1
    assert 0 < perceptual < 1 and 0 < spectrum < 3


def test_a_generator_is_measured_at_its_own_scale(srgan, tiny, monkeypatch):
    """At another one, the figures would be those of a corner."""
    tiny.scaling_factor = 2
    code, out, error = srgan("experiments")
    assert code == 0, error
    stored = experiments.read_result(
        experiments.runs_folder(tiny) / "first"
    ).metrics.Tiny.mean
    _, out, _ = srgan(
        "evaluate", experiments.runs_folder(tiny) / "first", "Tiny"
    )
    assert float(out.split()[-5]) == pytest.approx(stored.psnr, abs=1e-4)


@pytest.fixture
def upscale(srgan, tiny, here):
    """upscale(inputs, ...) -> as srgan, with a model that was trained."""
    srgan("train", "first")
    model = here / "runs/tiny/first"
    return functools.partial(
        srgan, "upscale", "-o", here / "out", "--model", model
    )


def enlarged(here, photo, ensemble=False):
    """What the library makes of a photo, in whole, without shortcuts."""
    generator = inference.load_generator(here / "runs/tiny/first")
    if ensemble:
        generator = inference.SelfEnsemble(generator)
    return inference.upscale(generator, read_image(photo)).astype(int)


def test_photographs_are_enlarged_into_a_folder(upscale, here):
    photo, target = here / "mine.jpg", here / "out" / "mine.png"
    write_image(photo, smooth_image(40, 32))
    code, out, _ = upscale(photo)
    assert code == 0 and out.strip() == str(target)
    expected = enlarged(here, photo)
    assert abs(read_image(target) - expected).max() <= 2  # bfloat16, maybe
    code, _, error = upscale(photo)
    assert code == 1 and one_line(error) and "--force" in error
    code, _, _ = upscale(photo, "--force", "--tile", "16")
    assert code == 0
    assert abs(read_image(target) - expected).max() <= 2


def test_an_ensemble_of_eight(upscale, here):
    photo = here / "mine.png"
    write_image(photo, smooth_image(40, 32))
    assert upscale(photo, "--ensemble")[0] == 0
    found = read_image(here / "out" / "mine.png")
    assert abs(found - enlarged(here, photo, ensemble=True)).max() <= 2


def test_a_folder_is_done_but_for_its_bad_files(upscale, here):
    folder = here / "photos"
    write_pictures(folder, [(16, 16), (16, 20)])
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not asked for")
    code, out, error = upscale(folder, here / "missing.png")
    names = [line.rpartition("/")[2] for line in out.splitlines()]
    assert code == 1 and names == ["0.png", "1.png"]
    first, second = error.splitlines()[-2:]
    assert first.startswith("srgan: ") and "bad.png is not an im" in first
    assert second.startswith("srgan: ") and "missing.png" in second
    assert sorted(p.name for p in (here / "out").iterdir()) == names


def test_a_photograph_that_memory_cannot_hold_is_named(
    upscale, here, monkeypatch
):
    write_pictures(here / "photos", [(16, 16), (16, 20)])
    enlarge = inference.upscale

    def sometimes(generator, image, *rest):
        if image.shape[1] == 16:
            raise MemoryError
        return enlarge(generator, image, *rest)

    monkeypatch.setattr(inference, "upscale", sometimes)
    code, out, error = upscale(here / "photos")
    assert code == 1 and out.strip().endswith("1.png")
    assert "0.png needs more memory than there is" in error


def test_what_a_photograph_brings_is_kept(upscale, here):
    color = Image.fromarray(smooth_image(16, 20)).convert("RGBA")
    color.putalpha(99)
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    color.save(here / "a.png", exif=exif)
    assert upscale(here / "a.png")[0] == 0
    with Image.open(here / "out/a.png") as found:
        assert found.mode == "RGBA" and found.size == (80, 64)
        assert found.getexif()[0x010F] == "a maker"
        assert found.getpixel((40, 30))[3] == 99


def test_two_inputs_for_one_output_are_noticed_before_any_work(upscale, here):
    for name in ("a.png", "a.jpg"):
        write_image(here / name, smooth_image(16, 16))
    code, out, error = upscale(here / "a.png", here / "a.jpg")
    assert code == 1 and out == "" and one_line(error)
    assert "a.png and" in error and "a.jpg would both become" in error
    assert not (here / "out").exists()


def test_what_a_jpeg_cannot_hold_is_noticed_before_any_work(
    upscale, here, monkeypatch
):
    monkeypatch.delattr(inference, "upscale")  # the work
    long, target = here / "long.png", here / "out.jpg"
    write_image(long, np.zeros((1, 16400, 3), np.uint8))
    code, out, error = upscale(long, "-o", target)
    assert code == 1 and out == "" and one_line(error)
    assert "65600 x 4 pixels is too large for JPEG" in error
    exif = Image.Exif()
    exif[0x010E] = "a long description" * 4000
    Image.new("RGB", (16, 16)).save(here / "told.png", exif=exif)
    code, out, error = upscale(here / "told.png", "-o", target)
    assert code == 1 and out == "" and one_line(error)
    assert "is too long for JPEG" in error and "use .png" in error
    assert not target.exists()


def test_what_is_no_photograph_is_refused(upscale, here):
    (here / "notes.txt").write_text("no image")
    code, _, error = upscale(here / "notes.txt")
    assert code == 1 and one_line(error) and "notes.txt" in error
    assert not (here / "out").exists()


def test_without_a_model_the_shipped_srgan_is_taken(srgan, here):
    write_image(here / "a.png", smooth_image(16, 12))
    code, out, _ = srgan("upscale", here / "a.png", "-o", here / "out")
    assert code == 0 and out.strip() == str(here / "out/a.png")
    sr = read_image(here / "out/a.png")
    lr = read_image(here / "a.png")
    srresnets, srgans = (
        inference.upscale(inference.load_generator(name), lr)
        for name in ("srresnet", "srgan")
    )
    # Not equal: the command computes in bf16 where the processor does.
    assert np.abs(sr - 1.0 * srgans).mean() < 0.5
    assert np.abs(sr - 1.0 * srresnets).mean() > 1


@pytest.mark.filterwarnings("ignore:.*legacy|.*will be removed")
def test_a_generator_is_exported(srgan, tiny, here):
    pytest.importorskip("onnx")
    srgan("train", "first")
    target = here / "a.onnx"
    code, out, _ = srgan("export", here / "runs/tiny/first", target)
    assert code == 0 and out.startswith(f"{target}: ")
    assert target.stat().st_size > 1000

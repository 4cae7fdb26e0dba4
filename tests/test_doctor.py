"""Each planted fault is among those named; what is healthy is left alone."""

import functools
import io
import sys

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from tiny import Bicubic, Features, tiny_config
from torch import nn
from torch.nn import functional as F

from srgan_lib import __main__ as cli
from srgan_lib import doctor, fault_runs, faults, losses, solver
from srgan_lib.errors import UserError
from srgan_lib.imresize import imresize
from srgan_lib.losses import EfficientNetFeatures
from srgan_lib.metrics import psnr, ssim
from srgan_lib.training import build_state

pytestmark = pytest.mark.usefixtures("one_thread")


def using(pipeline, generator=None):
    """A function from lr to sr, as this pipeline has it."""
    generator = generator or Bicubic()

    def enlarge(lr):
        if pipeline.shrink is faults.by_jpeg:
            file = io.BytesIO()
            Image.fromarray(lr).save(file, "JPEG")
            lr = np.asarray(Image.open(file))
        return pipeline.finish(pipeline.run(generator, pipeline.prepare(lr)))

    return enlarge


def named(findings):
    return {fault for finding in findings for fault in finding.faults}


def bicubic(lr):
    return imresize(lr, 4)


# --- a function that enlarges --------------------------------------------


@pytest.mark.parametrize(
    "enlarge",
    [
        bicubic,
        functools.partial(imresize, scale=4, kernel="bilinear"),
        functools.partial(imresize, scale=4, kernel="nearest"),
        using(faults.RIGHT),
    ],
    ids=["bicubic", "bilinear", "nearest", "network"],
)
def test_a_healthy_function_is_called_healthy(enlarge):
    assert doctor.examine(enlarge) == []


# What is not to be seen in sr, and what costs too little to be seen.
UNSEEN = {faults.truncated, faults.statistics_lost}
SEEN = [
    fault
    for fault in faults.FAULTS
    if (
        fault.step in ("prepare", "run", "finish")
        and fault.function not in UNSEEN
    )
    or fault.function is faults.by_jpeg
]


@pytest.mark.parametrize("fault", SEEN, ids=lambda fault: fault.name)
def test_a_planted_fault_is_named(fault):
    found = doctor.examine(using(faults.faulty(fault)))
    assert fault.name in named(found)
    assert len(found) == 1  # and nothing else is blamed


def test_what_looks_the_same_is_named_together():
    ranges = [
        fault
        for fault in faults.FAULTS
        if fault.function in (faults.signed_range, faults.read_as_imagenet)
    ]
    for fault in ranges:
        (finding,) = doctor.examine(using(faults.faulty(fault)))
        assert set(finding.faults) == {f.name for f in ranges}


def test_colors_that_nothing_explains_are_the_networks():
    (finding,) = doctor.examine(lambda lr: bicubic(255 - lr))
    assert "running statistics reset" in finding.faults


def test_a_picture_between_two_explanations_is_no_crash():
    found = doctor.examine(
        lambda lr: bicubic((0.49 * lr + 0.51 * lr[..., ::-1]).astype(np.uint8))
    )
    assert named(found) == {doctor.NAMES[faults.blue_first]}


def test_three_faults_that_look_alike_are_not_called_unknown():
    """Half way between two ranges, one of which two faults share."""
    alike = [faults.signed_range, faults.read_as_imagenet, faults.unit_range]

    def enlarge(lr):
        tones = [doctor.TONES[fault](lr / 255) for fault in alike[1:]]
        sr = imresize(np.mean(tones, axis=0).clip(0, 1), 4)
        return (sr.clip(0, 1) * 255).round().astype(np.uint8)

    found = doctor.examine(enlarge)
    assert named(found) == {doctor.NAMES[fault] for fault in alike}


def noisy(lr):
    noise = np.random.randint(0, 3, (lr.shape[0] * 4, lr.shape[1] * 4, 3))
    return bicubic(lr) // 2 * 2 + (noise == 0)


def by_torch(lr, **options):
    tensor = torch.tensor(lr).permute(2, 0, 1)[None].float()
    sr = F.interpolate(tensor, scale_factor=4, mode="bicubic", **options)
    return faults.to_image(faults.to_uint8(sr[0]))


def in_tiles(lr):
    """Blurred tile by tile, each with black around it."""
    sr = bicubic(lr)
    for top in range(0, sr.shape[0], 64):
        for left in range(0, sr.shape[1], 64):
            sr[top : top + 64, left] = sr[top, left : left + 64] = 0
    return sr


def with_a_fine_grid(lr):
    """A checkerboard over it: colors and places are right."""
    sr = bicubic(lr)
    board = np.indices(sr.shape[:2]).sum(axis=0) % 2 * 50 - 25
    return (sr.astype(int) + board[..., None]).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("enlarge", "name"),
    [
        (lambda lr: noisy(lr).astype(np.uint8), "not deterministic"),
        (lambda lr: bicubic(lr) / 255, "not a uint8 image"),
        (lambda lr: bicubic(lr).transpose(2, 0, 1), "not a uint8 image"),
        (lambda lr: imresize(lr, 2), "not a uint8 image"),
        (lambda lr: Image.fromarray(lr), "not a uint8 image"),
        (functools.partial(by_torch, align_corners=True), "align_corners"),
        (lambda lr: np.roll(bicubic(lr), -1, axis=1), "one pixel off"),
        (in_tiles, "tiles"),
        (lambda lr: bicubic(lr)[::-1].copy(), "another picture"),
        (with_a_fine_grid, "worse than bicubic"),
    ],
    ids=range(10),
)
def test_other_faults_are_named(enlarge, name):
    assert any(name in fault for fault in named(doctor.examine(enlarge)))


def test_bgr_inside_is_seen_by_a_swap():
    """A network that is good at red, fed with blue first."""

    def network(image):
        sr = bicubic(image).astype(float)
        sr[..., 2] = 0.9 * sr[..., 2] + 12
        return sr.round().astype(np.uint8)

    def inside(lr):
        return np.ascontiguousarray(network(lr[..., ::-1])[..., ::-1])

    assert "network works on BGR" in named(doctor.examine(inside))
    assert "network works on BGR" not in named(doctor.examine(network))


def test_a_module_in_training_mode_and_without_statistics():
    right = Bicubic().eval()
    assert doctor.examine_generator(right) == []
    assert named(doctor.examine_generator(right.train())) == {
        "batch norm in training mode"
    }
    right.eval().norm.reset_running_stats()
    assert "running statistics reset" in named(doctor.examine_generator(right))


# --- making lr, measuring ------------------------------------------------


@pytest.mark.parametrize("border", ["symmetric", "replicate"])
def test_imresize_is_healthy(border):
    shrink = functools.partial(imresize, scale=1 / 4, border=border)
    assert doctor.examine_shrinking(shrink) == []


@pytest.mark.parametrize(
    "fault",
    [f for f in faults.FAULTS if f.step == "shrink"],
    ids=lambda fault: fault.name,
)
def test_another_lr_is_named(fault):
    found = doctor.examine_shrinking(fault.function)
    assert fault.name in named(found)


def test_an_unknown_kernel_is_called_unknown():
    found = doctor.examine_shrinking(lambda hr: 255 - hr[::4, ::4])
    assert named(found) == {"LR made by an unknown kernel"}
    with pytest.raises(UserError, match="uint8"):
        doctor.examine_shrinking(lambda hr: hr)


@pytest.mark.parametrize(
    "measure",
    [
        psnr,
        functools.partial(psnr, quantize=False),
        lambda sr, hr: (psnr(sr, hr), ssim(sr, hr)),
        lambda sr, hr: (psnr(sr, hr), ssim(sr, hr, variant="daala")),
        lambda sr, hr: (psnr(sr, hr), ssim(sr, hr, quantize=False)),
    ],
    ids=range(5),
)
def test_the_papers_protocol_is_healthy(measure):
    assert doctor.examine_measure(measure) == []


@pytest.mark.parametrize(
    "fault",
    [f for f in faults.FAULTS if f.step in ("view", "target", "similarity")],
    ids=lambda fault: fault.name,
)
def test_another_protocol_is_named(fault):
    pipeline = faults.faulty(fault)
    found = doctor.examine_measure(
        lambda sr, hr: faults.figures(pipeline, sr, hr)
    )
    assert fault.name in named(found)


def test_an_unknown_protocol_is_called_unknown():
    found = doctor.examine_measure(lambda sr, hr: psnr(sr, hr) + 3)
    assert named(found) == {"another protocol, unknown here"}


# --- a step of training --------------------------------------------------


class Trainer:
    """Tiny networks, and one right step; a test plants its fault."""

    def __init__(self, batch=4):
        config = tiny_config(run={"network": "srgan"})
        config.srgan.update(ema_decay=0.9, crop_size=64)
        self.accelerator = Accelerator(cpu=True)
        self.stage = config.srgan
        self.state = build_state(self.accelerator, config, "srgan")
        self.features = EfficientNetFeatures()
        photo = doctor.photographs(4)[0][1]
        hr = np.stack([photo[k : k + 64, 96:160] for k in range(batch)])
        lr = np.stack([imresize(image, 1 / 4) for image in hr])
        lr, hr = (torch.tensor(x).permute(0, 3, 1, 2) for x in (lr, hr))
        self.batch = faults.normalize_lr(lr), hr.float() / 127.5 - 1

    def step(self):
        batches = [self.batch]
        list(
            solver.srgan_epoch(
                self.accelerator,
                self.state,
                batches,
                self.stage,
                1000,
                self.features,
                torch.ones(1),
            )
        )

    def examine(self, step=None, **changes):
        arguments = {
            "discriminator": self.state.discriminator,
            "ema": self.state.ema,
            "features": self.features,
            "batch": self.batch,
        }
        found = doctor.examine_training(
            step or self.step, self.state.generator, **arguments | changes
        )
        return named(found)


@pytest.fixture
def trainer():
    return Trainer()


def what(name):
    return next(f.what for f in fault_runs.FAULT_RUNS if f.name == name)


def test_a_right_step_is_healthy(trainer):
    assert trainer.examine() == set()


@pytest.mark.parametrize(
    "name", ["content-detached", "ema-backwards", "eval-mode"]
)
def test_a_wrong_function_is_named(trainer, name):
    fault = next(f for f in fault_runs.FAULT_RUNS if f.name == name)
    with fault_runs.spoiled(fault):
        assert what(name) in trainer.examine()


def test_random_features_are_named(trainer, monkeypatch):
    monkeypatch.setattr(
        losses, "load_features", lambda stage: EfficientNetFeatures()
    )
    trainer.features = fault_runs.random_features(trainer.stage)
    assert trainer.examine() == {what("random-features")}


@pytest.mark.parametrize(
    "init", [nn.init.kaiming_normal_, nn.init.orthogonal_]
)
def test_other_random_features_are_named(init):
    layer = nn.Conv2d(16, 64, 3)
    init(layer.weight)
    assert doctor.norm_spread(layer.weight) < 2
    assert doctor.look_at_features(layer, doctor.weights_of(layer))


def test_misaligned_crops_are_named(trainer):
    lr, hr = trainer.batch
    moved = lr[..., 1:, 1:], hr[..., 2:-2, 2:-2]
    assert trainer.examine(batch=moved) == {what("misaligned")}


def test_a_batch_of_one_is_named():
    assert Trainer(batch=1).examine() == {what("batch-of-one")}


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_network_that_does_not_learn_is_named(trainer, network):
    optimizer = {"generator": "g_optimizer", "discriminator": "d_optimizer"}
    for group in getattr(trainer.state, optimizer[network]).param_groups:
        group["params"] = []
    found = trainer.examine(ema=None)
    assert found == {f"{network} does not learn"}


def test_an_average_that_stays_is_named(trainer):
    ema, trainer.state.ema = trainer.state.ema, None
    assert trainer.examine(ema=ema) == {"EMA does not follow"}


def test_an_average_without_statistics_is_named(trainer):
    ema = trainer.state.ema
    kept = {k: v.clone() for k, v in ema.named_buffers()}

    def step():
        trainer.step()
        for key, buffer in ema.named_buffers():
            buffer.copy_(kept[key])

    assert trainer.examine(step) == {"EMA leaves out the running statistics"}


def test_features_that_learn_are_named(trainer):
    def step():
        trainer.step()
        next(trainer.features.parameters()).data += 1e-3

    assert trainer.examine(step) == {"content network is trained along"}


def test_features_that_nobody_asks_are_named(trainer):
    assert trainer.examine(features=Features()) >= {what("content-detached")}


def test_features_may_answer_with_a_dictionary():
    """As torchvision's create_feature_extractor does; and lr by its name."""
    generator = nn.Conv2d(3, 3, 3)
    features = nn.Sequential(nn.Conv2d(3, 3, 3))
    features.register_forward_hook(lambda m, x, y: {"relu": y})
    watch = doctor.Watch(generator, features)
    sr = generator(input=torch.ones(5, 3, 8, 8))
    features(sr)["relu"].sum().backward()
    assert watch.batches == {5} and watch.calls == 1
    assert watch.connected and watch.gradient > 0


# --- the command ---------------------------------------------------------


@pytest.fixture
def srgan(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["srgan", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0, capsys.readouterr().out
        return 0, capsys.readouterr().out

    return call


CODE = """
from srgan_lib.imresize import imresize
from srgan_lib.metrics import psnr
def right(lr): return imresize(lr, 4)
def dark(lr): return imresize(lr, 4) // 2
def rgb(sr, hr): return psnr(sr, hr, channel="rgb")
def thin(hr): return hr[::4, ::4]
"""


def test_the_command_examines_functions(srgan, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(CODE)
    code, out = srgan("doctor", f"{mine}:right")
    assert code == 0 and "Healthy" in out
    code, out = srgan("doctor", f"{mine}:dark")
    assert code == 1 and "seen:" in out and "cure:" in out
    code, out = srgan(
        *("doctor", f"{mine}:right", "--measure", f"{mine}:rgb"),
        *("--shrink", f"{mine}:thin"),
    )
    assert code == 1
    assert "RGB instead of Y" in out and "LR made by nearest" in out


STEP = """
import copy, torch
from test_doctor import Trainer
def healthy():
    t = Trainer()
    return {"step": t.step, "generator": t.state.generator, "ema": t.state.ema}
def idle():
    return healthy() | {"step": lambda: None}
"""


def test_the_command_examines_a_step_of_training(srgan, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(STEP)
    code, out = srgan("doctor", "--step", f"{mine}:healthy")
    assert code == 0 and "Healthy" in out
    code, out = srgan("doctor", "--step", f"{mine}:idle")
    assert code == 1 and "generator does not learn" in out


def test_the_command_wants_something_to_examine(srgan):
    code, _ = srgan("doctor")
    assert "Name what to examine" in code


def test_a_file_may_import_its_neighbors(srgan, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text("from neighbor_of_mine import right")
    (tmp_path / "neighbor_of_mine.py").write_text(CODE)
    assert srgan("doctor", f"{tmp_path / 'mine.py'}:right")[0] == 0
    monkeypatch.chdir(tmp_path)
    assert srgan("doctor", "neighbor_of_mine:right")[0] == 0


def test_an_error_inside_the_file_is_its_authors(srgan, tmp_path):
    (tmp_path / "mine.py").write_text("import no_such_package")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        srgan("doctor", f"{tmp_path / 'mine.py'}:right")


@pytest.mark.parametrize(
    "name", ["{}/no.py:f", "{}/mine.py:f", "nope:f", "no.pe:f", ":f", "x"]
)
def test_what_is_not_there_is_told(srgan, tmp_path, name):
    (tmp_path / "mine.py").write_text(CODE)
    code, _ = srgan("doctor", name.format(tmp_path))
    assert isinstance(code, str) and code.startswith("srgan: There is no")

"""A run that stops goes on exactly; one that breaks says where and leaves
nothing half-written."""

import json
import math
import os
import pickle
import random
import shutil
import signal

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from easydict import EasyDict
from tiny import Features, tiny_config, write_pictures

from srgan_lib import inference, training
from srgan_lib.checkpoints import (
    load_checkpoint,
    read_weights,
    save_checkpoint,
    save_weights,
)
from srgan_lib.datasets import EpochBatches, SRDataset
from srgan_lib.errors import UserError
from srgan_lib.images import normalize_lr, read_image, write_image
from srgan_lib.imresize import imresize
from srgan_lib.models import SRResNet
from srgan_lib.training import Interrupted, Run, train

pytestmark = pytest.mark.usefixtures("one_thread")
TIMINGS = {"seconds", "images_per_second", "data_seconds"}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Two tiny runs, in a folder that is not the project's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "load_features", lambda stage: Features())
    return tiny_config(
        srresnet={"network": "srresnet"}, srgan={"network": "srgan"}
    )


@pytest.fixture
def pairs(tmp_path):
    """Two small pictures, each (hr path, lr path)."""
    pairs = []
    for hr in write_pictures(tmp_path / "hr"):
        lr = tmp_path / "lr" / hr.name
        write_image(lr, imresize(read_image(hr), 0.25))
        pairs.append((hr, lr))
    return pairs


@pytest.fixture
def hook(monkeypatch):
    """hook(step, action): do something just before a step is accounted.

    Each step also draws random numbers, as dropout would: a resumed run
    has to go on with the same ones.
    """
    actions = {}

    def hooked(epoch):
        def wrapper(accelerator, state, *arguments):
            for figures in epoch(accelerator, state, *arguments):
                draws = random.random() + np.random.rand() + torch.rand(1)
                figures["draws"] = draws.item()
                if action := actions.pop(state.step, None):
                    action(state, figures)
                yield figures

        return wrapper

    for name in ("srresnet_epoch", "srgan_epoch"):
        monkeypatch.setattr(training, name, hooked(getattr(training, name)))
    return actions.__setitem__


def interrupt(state=None, figures=None):
    os.kill(os.getpid(), signal.SIGINT)


class Crash(Exception):
    """The power is gone."""


def crash(*anything):
    raise Crash


def without_timings(value):
    if isinstance(value, dict):
        return {
            k: without_timings(v) for k, v in value.items() if k not in TIMINGS
        }
    if isinstance(value, list):
        return [without_timings(v) for v in value]
    return value


def difference(a, b, place="state"):
    """Where two states differ, in the last bit; None if nowhere."""
    if type(a) is not type(b):
        return place
    if isinstance(a, torch.Tensor):
        same = a.dtype == b.dtype and torch.equal(a, b)
        return None if same else place
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return place
        parts = [(k, a[k], b[k]) for k in a]
    elif isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return place
        parts = zip(range(len(a)), a, b, strict=True)
    else:
        return None if a == b else place
    found = (difference(x, y, f"{place}.{k}") for k, x, y in parts)
    return next(filter(None, found), None)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_equal_runs(one, two):
    """Equal to the last bit, but for what a clock measured."""
    states = [
        without_timings(load_checkpoint(f / "checkpoint.pt"))
        for f in (one, two)
    ]
    assert difference(*states) is None
    for file in ("history.jsonl", "validation.jsonl"):
        found = [without_timings(lines(f / file)) for f in (one, two)]
        assert found[0] == found[1]
    for file in one.glob("*.safetensors"):
        assert file.read_bytes() == (two / file.name).read_bytes()


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# --- a whole run ---------------------------------------------------------


@pytest.mark.parametrize("network", ["srresnet", "srgan"])
def test_what_a_run_leaves(config, pairs, tmp_path, network):
    folder = tmp_path / "runs" / network
    train(config, network, folder, pairs, pairs[:1], snapshots=[1], key="k")
    assert files(folder) == [
        *("checkpoint.pt", "config.json", "history.jsonl"),
        *("validation.jsonl", "weights-1.safetensors", "weights.safetensors"),
    ]
    history = lines(folder / "history.jsonl")
    assert [r["step"] for r in history] == [2, 4, 6]
    assert [r["epoch"] for r in history] == [1, 2, 2]
    assert all(r[key] > 0 for r in history for key in TIMINGS & r.keys())
    assert {"images_per_second", "data_seconds"} < history[0].keys()
    validation = lines(folder / "validation.jsonl")
    assert [(r["epoch"], r["step"]) for r in validation] == [(1, 3), (2, 6)]
    assert all(math.isfinite(r["psnr"]) for r in validation)
    described = json.loads((folder / "config.json").read_text())
    assert described["state"] == "finished" and described["key"] == "k"
    assert described["steps"] == 6 and described["train_images"] == 2
    assert described["settings"]["G"] == dict(config.G)
    assert described["seconds"] > 0
    state, metadata = read_weights(folder / "weights.safetensors")
    assert json.loads(metadata["architecture"])["G"] == dict(config.G)
    network_there = SRResNet(config)
    network_there.load_state_dict(state)
    assert described["parameters"]["generator"] == sum(
        p.numel() for p in network_there.parameters()
    )
    precision = described["environment"]["precision"]
    assert precision == training.native_precision()
    if network == "srgan":
        assert described["features"] == "one layer"
        assert len(described["content_weights"]) == 1
        assert described["parameters"]["discriminator"] > 0


def test_a_history_line_is_the_mean_of_its_steps(
    config, pairs, tmp_path, hook
):
    seen = {}
    for step in range(1, 7):
        hook(step, lambda state, f: seen.update({state.step: dict(f)}))
    train(config, "srresnet", tmp_path / "run", pairs)
    history = lines(tmp_path / "run" / "history.jsonl")
    for record in history:
        steps = [seen[record["step"] - 1], seen[record["step"]]]
        mean = sum(float(f["pixel_loss"]) for f in steps) / 2
        assert record["pixel_loss"] == pytest.approx(mean)


def learned(state):
    """What training finds, without what batch norm measured."""
    return {
        k: v for k, v in state.items() if "running" not in k and "num" not in k
    }


def test_the_averaged_weights_are_the_ones_kept(config, pairs, tmp_path):
    train(config, "srresnet", tmp_path / "a", pairs)
    kept, _ = read_weights(tmp_path / "a/weights.safetensors")
    saved = load_checkpoint(tmp_path / "a/checkpoint.pt")["parts"]
    assert difference(learned(kept), learned(saved["ema"])) is None
    assert not torch.equal(
        kept["head.0.weight"], saved["generator"]["head.0.weight"]
    )
    config.srresnet.ema_decay = None
    train(config, "srresnet", tmp_path / "b", pairs)
    kept, _ = read_weights(tmp_path / "b/weights.safetensors")
    saved = load_checkpoint(tmp_path / "b/checkpoint.pt")["parts"]
    assert "ema" not in saved
    assert difference(learned(kept), learned(saved["generator"])) is None


@pytest.mark.parametrize("network", ["srresnet", "srgan"])
def test_batch_norm_is_kept_with_the_statistics_of_many_crops(
    config, pairs, tmp_path, network
):
    train(config, network, tmp_path, pairs)
    kept = inference.load_generator(tmp_path)
    dataset = SRDataset(pairs, config, config[network].crop_size)
    size = training.STATISTICS_CROPS
    assert size <= len(dataset)
    (numbers,) = EpochBatches(dataset, size, epoch=0, steps=1)
    crops = normalize_lr(dataset.batch(numbers)[0])
    convolution, norm, _ = kept.residual_blocks[0].body[0]
    with torch.no_grad():
        seen = convolution(kept.head(crops))
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, seen.var((0, 2, 3)))


def test_measuring_batch_norm_leaves_the_training_as_it_is(
    config, pairs, tmp_path
):
    """Whether and how often one looks, the run learns the same."""
    train(config, "srresnet", tmp_path / "a", pairs, pairs, snapshots=[1, 2])
    train(config, "srresnet", tmp_path / "b", pairs)
    states = [
        load_checkpoint(tmp_path / run / "checkpoint.pt")["parts"]
        for run in "ab"
    ]
    assert difference(*states) is None


def test_a_snapshot_is_the_shorter_run(config, pairs, tmp_path):
    train(config, "srresnet", tmp_path / "a", pairs, snapshots=[1])
    config.runs.srresnet.epochs = 1
    train(config, "srresnet", tmp_path / "b", pairs)
    snapshot = tmp_path / "a" / "weights-1.safetensors"
    shorter = tmp_path / "b" / "weights.safetensors"
    assert snapshot.read_bytes() == shorter.read_bytes()


def test_srgan_begins_with_the_weights_of_its_srresnet(config, tmp_path):
    trained = SRResNet(config)
    save_weights(tmp_path / "a.safetensors", trained)
    state = training.build_state(
        training.make_accelerator(),
        config,
        "srgan",
        tmp_path / "a.safetensors",
    )
    for network in (state.generator, state.ema):
        found = network.state_dict()
        for key, value in trained.state_dict().items():
            assert torch.equal(found[key], value)


def test_content_is_calibrated_against_bicubic(config, pairs, tmp_path):
    """By the rule that the book states: the loss of bicubic is about 1."""
    run = Run(config, "srgan", tmp_path / "run", pairs)
    losses = []
    for n in range(16):
        lr, hr = run.dataset.crop(n)
        bicubic = imresize(lr, 4)
        a, b = (
            run.features(training_range(image))[0] for image in (bicubic, hr)
        )
        losses.append(((a - b) ** 2).mean().item())
    mean = sum(losses) / len(losses) * run.content_weights.item()
    assert mean == pytest.approx(1, rel=0.25)
    config.srgan.content_weight = 0.3
    fixed = Run(config, "srgan", tmp_path / "fixed", pairs)
    assert fixed.content_weights.tolist() == pytest.approx([0.3])


def training_range(image):
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    return tensor[None] / 127.5 - 1


# --- interrupted ---------------------------------------------------------


@pytest.mark.parametrize("network", ["srresnet", "srgan"])
@pytest.mark.parametrize("step", [1, 3, 5])  # 3 ends the first epoch
def test_resumed_equals_uninterrupted(
    config, pairs, tmp_path, hook, network, step
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, network, whole, pairs, pairs[:1])
    hook(step, interrupt)
    with pytest.raises(Interrupted, match=r"SIGINT: saved .*checkpoint\.pt"):
        train(config, network, broken, pairs, pairs[:1])
    saved = load_checkpoint(broken / "checkpoint.pt")
    assert saved["step"] == step
    assert not (broken / "weights.safetensors").exists()
    torch.manual_seed(99)  # another process
    train(config, network, broken, pairs, pairs[:1])
    assert_equal_runs(whole, broken)


@pytest.mark.parametrize("schedule", ["half", "cosine", "one_cycle"])
def test_a_schedule_goes_on_too(config, pairs, tmp_path, hook, schedule):
    config.srresnet.update(
        schedule=schedule, ema_decay=None, clip_norm=None, pixel_loss="mse"
    )
    config.augment = False
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, "srresnet", whole, pairs)
    for step in (2, 4):  # twice
        hook(step, interrupt)
        with pytest.raises(Interrupted):
            train(config, "srresnet", broken, pairs)
    train(config, "srresnet", broken, pairs)
    assert_equal_runs(whole, broken)


def test_sigterm_saves_too(config, pairs, tmp_path, hook):
    hook(2, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        train(config, "srresnet", tmp_path / "run", pairs)
    assert caught.value.signum == signal.SIGTERM
    handed_on = pickle.loads(pickle.dumps(caught.value))  # by a process
    assert str(handed_on) == str(caught.value)
    assert load_checkpoint(tmp_path / "run/checkpoint.pt")["step"] == 2


def test_a_signal_during_the_last_validation_is_not_lost(
    config, pairs, tmp_path, monkeypatch
):
    config.runs.srresnet.epochs = 1
    validate = training.validate
    monkeypatch.setattr(
        training, "validate", lambda *a: interrupt() or validate(*a)
    )
    with pytest.raises(Interrupted, match="SIGINT"):
        train(config, "srresnet", tmp_path / "run", pairs, pairs[:1])
    described = json.loads((tmp_path / "run/config.json").read_text())
    assert described["state"] == "finished"


def test_handlers_are_put_back_and_a_later_signal_acts_at_once(monkeypatch):
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    clock = iter([100, 101, 104])
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), training.noticed_signals() as seen:
        interrupt()
        interrupt()  # the same Ctrl-C, passed on by a launcher
        assert seen == [signal.SIGINT]
        interrupt()
    assert handlers == [
        signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)
    ]


def test_a_finished_run_trains_nothing_more(config, pairs, tmp_path, hook):
    folder = tmp_path / "run"
    train(config, "srresnet", folder, pairs)
    before = (folder / "checkpoint.pt").read_bytes()
    for step in range(10):
        hook(step, crash)
    train(config, "srresnet", folder, pairs)
    assert (folder / "checkpoint.pt").read_bytes() == before


# --- broken --------------------------------------------------------------


def test_a_crash_loses_the_steps_since_the_checkpoint_only(
    config, pairs, tmp_path, hook
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    config.history_every = 1
    train(config, "srresnet", whole, pairs, pairs[:1])
    hook(6, crash)
    with pytest.raises(Crash):
        train(config, "srresnet", broken, pairs, pairs[:1])
    history = broken / "history.jsonl"
    assert [r["step"] for r in lines(history)] == [1, 2, 3, 4, 5]
    history.write_text(history.read_text() + '{"step": 6, "pix')
    assert load_checkpoint(broken / "checkpoint.pt")["step"] == 3
    train(config, "srresnet", broken, pairs, pairs[:1])
    assert_equal_runs(whole, broken)


@pytest.mark.parametrize("minutes", [1000, 1e-9])  # 1e-9: after every step
def test_a_crash_after_the_validation_repeats_no_record(
    config, pairs, tmp_path, monkeypatch, minutes
):
    config.checkpoint_minutes = minutes
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, "srresnet", whole, pairs, pairs[:1])
    save = Run.save

    def once(run):
        if (run.epoch, run.step_in_epoch) == (2, 0):
            raise Crash
        save(run)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Run, "save", once)
        train(config, "srresnet", broken, pairs, pairs[:1])
    assert len(lines(broken / "validation.jsonl")) == 2
    train(config, "srresnet", broken, pairs, pairs[:1])
    assert_equal_runs(whole, broken)


def test_a_crash_before_the_first_checkpoint_starts_over(
    config, pairs, tmp_path, hook
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, "srgan", whole, pairs)
    hook(2, crash)
    with pytest.raises(Crash):
        train(config, "srgan", broken, pairs)
    train(config, "srgan", broken, pairs)
    assert_equal_runs(whole, broken)


def poison(state, figures=None):
    next(state.generator.parameters()).data.fill_(math.nan)


@pytest.mark.parametrize("network", ["srresnet", "srgan"])
def test_nan_stops_the_run_and_spoils_nothing(
    config, pairs, tmp_path, hook, network
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, network, whole, pairs)
    hook(4, poison)
    with pytest.raises(UserError) as caught:
        train(config, network, broken, pairs)
    message = str(caught.value)
    for part in (network, "loss became nan", "step 5", "checkpoint.pt"):
        assert part in message
    saved = load_checkpoint(broken / "checkpoint.pt")
    assert saved["step"] == 3
    assert all(v.isfinite().all() for v in saved["parts"]["ema"].values())
    train(config, network, broken, pairs)
    assert_equal_runs(whole, broken)


def test_nan_before_any_checkpoint_says_so(config, pairs, tmp_path, hook):
    def overflow(state, figures):
        figures["generator_gradient"] = torch.tensor(math.inf)

    hook(1, overflow)
    with pytest.raises(UserError) as caught:
        train(config, "srresnet", tmp_path / "run", pairs)
    for part in ("generator_gradient became inf", "step 1", "Nothing was sa"):
        assert part in str(caught.value)
    assert not (tmp_path / "run/checkpoint.pt").exists()


def test_a_truncated_checkpoint_is_refused(config, pairs, tmp_path):
    folder = tmp_path / "run"
    train(config, "srresnet", folder, pairs)
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"checkpoint\.pt is no complete"):
        train(config, "srresnet", folder, pairs)


@pytest.mark.parametrize("change", ["srgan", "wider", "deeper", "junk"])
def test_a_checkpoint_of_another_run_is_refused(
    config, pairs, tmp_path, change
):
    folder = tmp_path / "run"
    train(config, "srresnet", folder, pairs)
    before = (folder / "checkpoint.pt").read_bytes()
    if change == "wider":
        config.G.n_channels = 8
    if change == "deeper":
        config.G.n_blocks = 2
    if change == "junk":
        save_checkpoint(folder / "checkpoint.pt", [1, 2])
        before = (folder / "checkpoint.pt").read_bytes()
    name = "srgan" if change == "srgan" else "srresnet"
    with pytest.raises(UserError, match=r"checkpoint\.pt was written by a ru"):
        train(config, name, folder, pairs)
    assert (folder / "checkpoint.pt").read_bytes() == before


def test_an_unwritable_folder_is_refused_before_training(
    config, pairs, tmp_path, hook
):
    (tmp_path / "file").write_text("no folder")
    hook(1, crash)
    with pytest.raises(UserError, match=r"file/run/config\.json cannot be"):
        train(config, "srresnet", tmp_path / "file" / "run", pairs)


def test_a_disk_that_fills_up_is_named(config, pairs, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def full(path, *arguments, **options):
        if str(path).endswith("history.jsonl") and "a" in arguments:
            raise OSError(28, "No space left on device")
        return open(path, *arguments, **options)

    monkeypatch.setattr(training, "open", full, raising=False)
    with pytest.raises(UserError, match=r"history\.jsonl cannot .*No space"):
        train(config, "srresnet", folder, pairs)


def test_too_few_images_for_a_batch_are_named(config, pairs, tmp_path):
    config.crops_per_image = 1
    config.srresnet.batch_size = 5
    with pytest.raises(UserError, match="2 crops do not fill one batch of 5"):
        train(config, "srresnet", tmp_path / "run", pairs)


def test_what_a_killed_save_left_is_cleared_away(config, pairs, tmp_path):
    folder = tmp_path / "run"
    train(config, "srresnet", folder, pairs)
    before = files(folder)
    for name in (f".{'0f' * 16}.pt", f".{'a1' * 16}.json"):
        (folder / name).write_bytes(b"half a file")
    (folder / ".notes").write_text("the reader's own")
    train(config, "srresnet", folder, pairs)
    assert files(folder) == [".notes", *before]


def test_a_lost_process_is_told_in_plain_words(config, pairs, tmp_path, hook):
    def fail(error):
        def action(state, figures):
            raise error

        return action

    folder = tmp_path / "run"
    for error in (
        RuntimeError("[/gloo/transport/tcp/pair.cc:1] Connection closed"),
        torch.distributed.DistBackendError("NCCL: remote process exited"),
    ):
        hook(4, fail(error))
        with pytest.raises(UserError) as caught:
            train(config, "srresnet", folder, pairs)
        message = str(caught.value)
        assert message.startswith("srresnet: another process of this train")
        assert f"The last good state is {folder}/checkpoint.pt" in message
    hook(4, fail(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes"):
        train(config, "srresnet", folder, pairs)


# --- watching ------------------------------------------------------------


def test_the_bar_tells_losses_psnr_and_speed(
    config, pairs, tmp_path, monkeypatch
):
    shown = []

    class Bar(training.tqdm):
        def set_postfix(self, figures, refresh):
            shown.append(figures)

    monkeypatch.setattr(training, "tqdm", Bar)
    train(config, "srgan", tmp_path / "run", pairs, pairs)
    validation = lines(tmp_path / "run" / "validation.jsonl")
    assert len(shown) == 6
    for figures in shown:
        assert {"pixel_loss", "D(real)", "D(fake)", "img/s"} < set(figures)
    assert all("dB" not in figures for figures in shown[:3])
    for figures in shown[3:]:
        assert figures["dB"] == f"{validation[0]['psnr']:.2f}"


def test_a_resumed_run_shows_the_last_psnr(config, pairs, tmp_path, hook):
    hook(4, interrupt)
    with pytest.raises(Interrupted):
        train(config, "srresnet", tmp_path / "run", pairs, pairs)
    run = Run(config, "srresnet", tmp_path / "run", pairs)
    (record,) = lines(tmp_path / "run" / "validation.jsonl")
    assert run.validation == [record]


def test_the_history_can_be_read_while_it_grows(config, pairs, tmp_path, hook):
    folder, found = tmp_path / "run", []
    for step in range(1, 7):
        hook(
            step,
            lambda state, figures: found.append(
                [r["step"] for r in lines(folder / "history.jsonl")]
            ),
        )
    train(config, "srresnet", folder, pairs)
    assert found == [[], [], [2], [2], [2, 4], [2, 4]]


def test_without_an_average_a_plain_copy_is_evaluated(
    config, pairs, tmp_path, monkeypatch
):
    """In full precision and uncompiled, whatever the training uses."""
    config.srresnet.ema_decay = None
    evaluated, validate = [], training.validate
    monkeypatch.setattr(
        training,
        "validate",
        lambda g, pairs: evaluated.append(g) or validate(g, pairs),
    )
    train(config, "srresnet", tmp_path / "run", pairs, pairs)
    kept = inference.load_generator(tmp_path / "run")
    record = lines(tmp_path / "run" / "validation.jsonl")[-1]
    assert record["psnr"] == validate(kept, pairs)
    assert "forward" not in vars(evaluated[-1])  # unwrapped


def test_checkpoints_come_by_the_clock_too(
    config, pairs, tmp_path, monkeypatch
):
    saved, save = [], Run.save
    monkeypatch.setattr(
        Run, "save", lambda run: saved.append(run.state.step) or save(run)
    )
    train(config, "srresnet", tmp_path / "a", pairs)
    assert saved == [3, 6]
    saved.clear()
    config.checkpoint_minutes = 1e-9
    train(config, "srresnet", tmp_path / "b", pairs)
    assert saved == [1, 2, 3, 3, 4, 5, 6, 6]


# --- small parts ---------------------------------------------------------


def test_precision_follows_what_the_processor_says(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for found, expected in (
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"avx512_bf16": False, "avx2": True}, "no"),
        ({}, "no"),
    ):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda f=found: f, raising=False
        )
        assert training.native_precision() == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older PyTorch
    assert training.native_precision() == "no"


def test_lines_after_a_broken_one_do_not_count(tmp_path):
    path = tmp_path / "a.jsonl"
    assert training.read_lines(path) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste\n{"step": 4}\n')
    assert training.read_lines(path) == [{"step": 1}, {"step": 2}]
    training.keep_until(path, 1)
    assert path.read_text() == '{"step": 1}\n'
    training.keep_until(tmp_path / "new.jsonl", 5)
    assert (tmp_path / "new.jsonl").read_text() == ""


def test_images_live_on_a_gpu_that_has_room(pairs, monkeypatch):
    """Two pictures of 48 x 40 and their twins: 12,240 bytes."""
    gpu = EasyDict(device=torch.device("cuda", 1))
    for free, home in ((24481, gpu.device), (24480, None)):
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda device, f=free: (f, 10**9)
        )
        assert training.image_home(gpu, pairs) == home
    cpu = EasyDict(device=torch.device("cpu"))
    assert training.image_home(cpu, pairs) is None


def test_a_run_that_goes_on_from_another_takes_new_crops(
    config, pairs, monkeypatch, tmp_path
):
    taken, batch = [], SRDataset.batch

    def watched(self, numbers):
        taken.extend(numbers)
        return batch(self, numbers)

    monkeypatch.setattr(SRDataset, "batch", watched)
    # It takes crops as well, and always the same.
    monkeypatch.setattr(training, "measure_batch_norm", lambda g, crops: g)
    config.runs.third = config.runs.srresnet | {"start": "srresnet"}
    weights = tmp_path / "srresnet" / "weights.safetensors"
    for name, start in (("srresnet", None), ("third", weights)):
        training.train(config, name, tmp_path / name, pairs, start=start)
    config.runs.srresnet.epochs *= 2  # in one go
    training.train(config, "srresnet", tmp_path / "long", pairs)
    middle = len(taken) // 2
    assert taken[:middle] == taken[middle:]
    assert len(set(taken)) == middle


def test_weights_are_measured_on_as_many_crops_as_there_are(
    config, pairs, tmp_path
):
    config.crops_per_image, config.steps_per_epoch = 2, None  # two batches
    run = training.Run(config, "srgan", tmp_path / "run", pairs)
    assert run.steps == 2 and run.content_weights.isfinite().all()


def test_batches_of_images_on_a_device_are_those_from_memory(config, pairs):
    accelerator = training.make_accelerator()
    config.augment = True
    found = []
    for home in (None, torch.device("cpu")):
        dataset = SRDataset(pairs, config, 16, home)
        numbers = EpochBatches(dataset, 4, 0, 20)
        found.append(
            list(training.load_batches(accelerator, dataset, numbers, []))
        )
        kept = next(iter(dataset.store.images.values()))
        assert isinstance(kept, np.ndarray if home is None else torch.Tensor)
    for one, two in zip(*found, strict=True):
        assert difference(one, two) is None


def short_training(config, compiled):
    """Figures of five SRGAN steps; twice, for the networks to take turns."""
    accelerator = training.make_accelerator()
    state = training.build_state(accelerator, config, "srgan")
    if compiled:
        training.compile_networks(accelerator, state)
    keys = list(training.parts(accelerator, state)["generator"].state_dict())
    draw = torch.Generator().manual_seed(0)
    batch = (
        torch.randn(2, 3, 9, 9, generator=draw),
        torch.rand(2, 3, 36, 36, generator=draw) * 2 - 1,
    )
    epoch = training.srgan_epoch(
        *(accelerator, state, [batch] * 5, config.srgan, 5),
        *(Features(), torch.ones(1)),
    )
    return keys, [{k: float(v) for k, v in f.items()} for f in epoch]


@pytest.fixture
def frames():
    """What became of the functions that torch.compile was given."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(suppress_errors=False):  # put back, then
        yield torch._dynamo.utils.counters["frames"]


@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_compiled_networks_learn_the_same(
    config, monkeypatch, frames, backend
):
    """inductor needs a C compiler; aot_eager traces and compiles nothing."""
    if backend == "inductor" and not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    # In bf16 inductor rounds less often, and figures drift apart.
    monkeypatch.setattr(training, "native_precision", lambda: "no")
    AcceleratorState._reset_state()  # of another precision, it may be
    compiled = []

    def compile(network, **options):
        compiled.append(network)
        real(network, backend=backend, **options)

    real = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    keys, expected = short_training(config, compiled=False)
    assert not compiled
    same_keys, found = short_training(config, compiled=True)
    assert len(compiled) == 2 and keys == same_keys
    assert frames["ok"] == frames["total"] > 0  # nothing was left as it is
    assert not torch._dynamo.utils.counters["graph_break"]
    AcceleratorState._reset_state()
    for one, two in zip(expected, found, strict=True):
        assert two == pytest.approx(one, rel=0.02, abs=1e-3)


@pytest.mark.slow
def test_without_a_compiler_networks_run_uncompiled(
    config, tmp_path, monkeypatch, frames
):
    from torch._inductor import config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    expected = short_training(config, compiled=False)
    with inductor.patch(
        {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}
    ):
        assert short_training(config, compiled=True) == expected
    assert frames["total"] > frames["ok"]  # it was tried


def test_only_long_runs_on_a_gpu_are_compiled(
    config, pairs, tmp_path, monkeypatch
):
    gpu, cpu = (EasyDict(device=torch.device(d)) for d in ("cuda", "cpu"))
    there = {"gcc": "/usr/bin/gcc"}
    monkeypatch.setattr(training.shutil, "which", there.get)
    monkeypatch.setattr(
        training, "find_spec", lambda name: name == "triton" or None
    )
    assert training.worth_compiling(gpu, 100_000)
    assert not training.worth_compiling(gpu, 100)
    assert not training.worth_compiling(cpu, 100_000)
    there.clear()
    assert not training.worth_compiling(gpu, 100_000)
    asked, compiled = [], []
    monkeypatch.setattr(
        training, "worth_compiling", lambda a, steps: asked.append(steps) or 1
    )
    monkeypatch.setattr(
        training, "compile_networks", lambda *_: compiled.append(1)
    )
    Run(config, "srresnet", tmp_path / "run", pairs)
    assert asked == [6] and compiled == [1]


def test_waiting_times_are_noted():
    waits = []
    batches = iter("ab")
    assert list(training.timed(batches, waits)) == ["a", "b"]
    assert len(waits) == 3 and all(w >= 0 for w in waits)


def test_batches_are_made_one_ahead_in_their_order():
    made = []

    def batches():
        for k in range(3):
            made.append(k)
            yield k

    ahead = training.one_ahead(batches())
    assert next(ahead) == 0
    assert [*ahead] == [1, 2] and made == [0, 1, 2]


def test_an_error_in_a_batch_reaches_the_trainer():
    def broken():
        yield 1
        raise UserError("a photograph is gone")

    ahead = training.one_ahead(broken())
    assert next(ahead) == 1
    with pytest.raises(UserError, match="is gone"):
        next(ahead)

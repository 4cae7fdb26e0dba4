"""The benchmarks measure what they say, and compare like with like."""

import contextlib
import json
import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from benchmarks import __main__ as bench
from benchmarks import (
    account,
    attempts,
    gpu,
    machine,
    quality,
    steps,
    timing,
    tools,
)
from benchmarks.steps import Way, configuration
from benchmarks.tutorial import Crops, PlainGenerator, loader
from srgan_lib import losses
from srgan_lib.config import load_profile
from srgan_lib.data_lists import data_list
from srgan_lib.experiments import RECORDS
from srgan_lib.images import IMAGENET_MEAN, IMAGENET_STD, write_image
from srgan_lib.models import Discriminator, Generator
from srgan_lib.training import native_precision

NETWORKS = ("srresnet", "srgan")

# --- timing ------------------------------------------------------------------


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Accelerate knows one precision a process; here it takes several."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def test_summary_is_median_and_quarters():
    assert timing.summary([5, 1, 2, 4, 3]) == {
        "seconds": 3,
        "low": 2,
        "high": 4,
        "count": 5,
    }
    assert timing.summary([7.0])["seconds"] == 7


def test_functions_take_turns_after_a_warm_up():
    calls = []
    names = ("a", "b")
    found = timing.by_turns(
        {n: lambda n=n: calls.append(n) for n in names}, rounds=3
    )
    assert calls == [*"ab", *"ab", *"ab", *"ab"]
    assert {n: found[n]["count"] for n in names} == {"a": 3, "b": 3}


def test_a_matrix_product_has_a_rate():
    for kind in (torch.bfloat16, torch.float32):
        assert 1e6 < timing.matrix_rate(kind, size=64) < 1e16


def test_what_takes_long_is_called_once():
    calls = []

    def slow():
        calls.append("slow")
        time.sleep(0.05)

    found = timing.by_turns(
        {"slow": slow, "fast": lambda: None}, rounds=3, patience=0.03
    )
    assert calls == ["slow"]
    assert found["slow"]["count"] == 1
    assert found["slow"]["seconds"] >= 0.05
    assert found["fast"]["count"] == 3


# --- the usual way, and ours -------------------------------------------------


def test_crops_of_a_plain_picture_have_the_usual_ranges(tmp_path):
    color = np.array([200, 100, 50], np.uint8)
    write_image(tmp_path / "plain.png", np.tile(color, (60, 50, 1)))
    crops = Crops([tmp_path / "plain.png"], 48, 4, count=10)
    assert len(crops) == 10
    lr, hr = crops[3]
    assert lr.shape == (3, 12, 12)
    assert hr.shape == (3, 48, 48)
    expected = (color / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(lr[:, 5, 5], expected, rtol=1e-5)
    np.testing.assert_allclose(hr[:, 5, 5], color / 127.5 - 1, rtol=1e-5)


def test_lr_of_a_crop_is_its_hr_shrunk():
    paths = [hr for hr, _ in data_list("PhotosVal")]
    lr, hr = Crops(paths, 96, 4, count=2)[1]
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD)
    )
    boxes = (hr + 1).div(2).unflatten(2, (24, 4)).unflatten(1, (24, 4))
    gap = lr * std + mean - boxes.mean(dim=(2, 4))
    assert gap.abs().mean() < 0.01


def test_a_loader_gives_so_many_whole_batches():
    paths = [hr for hr, _ in data_list("PhotosVal")]
    batches = list(loader(paths, 16, 4, batch_size=3, batches=2, workers=0))
    assert [len(lr) for lr, _ in batches] == [3, 3]


def test_the_plain_generator_is_the_same_network():
    config = configuration("smoke")
    ours, plain = Generator(config), PlainGenerator(config)
    plain.load_state_dict(ours.state_dict())
    lr = torch.randn(2, 3, 12, 12)
    ours, plain = ours.double()(lr.double()), plain.double()(lr.double())
    torch.testing.assert_close(ours, plain)


def first_losses(network, measures):
    """Two steps from the same beginning on the same crops."""
    torch.manual_seed(0)
    random.seed(0)
    way = Way(network, frozenset(measures), profile="smoke")
    config = configuration("smoke")
    made = steps.tutorial_steps(way, config, data_list("PhotosVal"))
    losses = [next(made), next(made)]
    made.close()
    return losses


@pytest.mark.parametrize("network", NETWORKS)
def test_measures_change_the_time_and_not_the_training(network):
    exact = set(steps.MEASURES) - {"bf16", "cached images"}
    plain = first_losses(network, ())
    assert plain[0] != plain[1]
    assert first_losses(network, exact) == pytest.approx(plain, rel=2e-3)


def test_bf16_computes_in_bf16_and_answers_in_32_bits():
    torch.manual_seed(0)
    network, images = Discriminator(configuration("smoke")), None
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        exact = network.eval()(images)
        steps.in_bf16(network, torch.device("cpu"))
        logits, pair = network(images), network(images, images)
    assert logits.dtype == pair[1].dtype == torch.float32
    assert next(network.parameters()).dtype == torch.float32
    assert 0 < (logits - exact).abs().max() < 0.05


@pytest.mark.parametrize("kind", attempts.PRELUS.values())
def test_attempts_at_prelu_compute_prelu(kind):
    torch.manual_seed(0)
    results = []
    for network in (nn.PReLU(), nn.Sequential(nn.PReLU())):
        if isinstance(network, nn.Sequential):
            attempts.replace_prelu(network, kind)
            assert type(network[0]) is kind
        x = torch.linspace(-2, 3, 50).reshape(2, 5, 5).requires_grad_()
        y = network(x)
        (y * torch.arange(50.0).reshape(2, 5, 5)).sum().backward()
        slope = next(network.parameters())
        results.append((y.detach(), x.grad, slope.grad))
    for plain, tried in zip(*results, strict=True):
        torch.testing.assert_close(plain, tried)


@contextlib.contextmanager
def attempted(attempt):
    """A small SRGAN run with the attempt of that name."""
    pairs = data_list("PhotosVal")
    with steps.fresh_run(configuration("smoke"), "srgan", pairs) as run:
        attempts.apply(attempt, run)
        yield run


def undone(run):
    """The names of the savings that a run does without."""
    critic = run.state.discriminator.requires_grad_(False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = run.features(torch.zeros(1, 3, 48, 48))[0]
    leaky = [m for m in critic.modules() if isinstance(m, nn.LeakyReLU)]
    seen = {
        "activations not in place": not any(m.inplace for m in leaky),
        "gradient of the features of hr": features.requires_grad,
        "gradients of the asked discriminator": any(
            p.requires_grad for p in critic.parameters()
        ),
        "content network in fp32": features.dtype == torch.float32,
    }
    assert seen.keys() == attempts.UNDONE.keys()
    return {name for name, found in seen.items() if found}


def test_attempts_change_the_time_and_not_the_training():
    expected = None
    for attempt in (None, *attempts.PRELUS, *attempts.UNDONE):
        with attempted(attempt) as run:
            assert undone(run) == {attempt} & attempts.UNDONE.keys()
            figures = run.epoch_figures()
            found = [
                step[loss]
                for step in (next(figures), next(figures))
                for loss in ("generator_loss", "discriminator_loss")
            ]
            figures.close()
        expected = expected or found
        rounding = 1e-2 if attempt == "content network in fp32" else 2e-3
        assert found == pytest.approx(expected, rel=rounding), attempt


def test_torch_compile_is_for_both_networks():
    with attempted("torch.compile") as run:
        for network in (run.state.generator, run.state.discriminator):
            assert network._compiled_call_impl is not None


@pytest.mark.slow
def test_every_way_can_be_timed_in_a_process_of_its_own():
    options = {"profile": "smoke", "warm": 1, "timed": 2, "rounds": 1}
    every = frozenset(steps.MEASURES)
    ways = {
        "usual": Way("srgan", workers=1, **options),
        "ours": Way("srgan", every, library=True, **options),
        "fp32": Way("srresnet", every - {"bf16"}, library=True, **options),
        "all": Way("srgan", every, **options),
    }
    found = steps.time_ways(ways)
    assert [row["count"] for row in found.values()] == [2] * 4
    assert 0 <= found["ours"]["waiting"] < found["ours"]["seconds"]
    assert all(row["matrix"] > 1e6 for row in found.values())


@pytest.mark.slow
def test_attempts_are_timed_beside_ours():
    names = ["PReLU as one interpolation"]
    found = bench.with_attempts("srresnet", "smoke", names, rounds=1)
    assert list(found) == ["ours", *names]
    assert all(0 < row["seconds"] < 10 for row in found.values())


@pytest.mark.slow
def test_quality_compares_two_trainings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = quality.quality("smoke", steps=3)
    assert found["steps"] == 3
    assert found["ours"]["precision"] == native_precision()
    assert found["fp32"]["precision"] == "no"
    assert found["ours"]["psnr"] == pytest.approx(
        found["fp32"]["psnr"], abs=0.3
    )
    assert quality.quality("smoke", steps=3) == found  # kept, not repeated


# --- counting and booking ----------------------------------------------------


def test_operations_are_those_counted_by_hand():
    config = configuration("smoke")
    n, c, s = 16, config.G.n_channels, config.srresnet.crop_size // 4
    macs = [3 * c * 81 * s**2]  # head; its input needs no gradient
    macs += [c * c * 9 * s**2] * (2 * config.G.n_blocks + 1)
    macs += [4 * c * c * 9 * s**2, 4 * c * c * 9 * (2 * s) ** 2]
    macs += [3 * c * 81 * (4 * s) ** 2]
    by_hand = 2 * n * (3 * sum(macs) - macs[0])
    found = machine.operations("smoke")
    assert found["srresnet"] == by_hand
    assert found["srgan"] > by_hand


def test_limits_are_rates():
    limits = machine.limits(size=64, megabytes=1)
    assert all(limits[kind] > 1e6 for kind in ("bf16", "fp32", "copy"))


class Sleep(torch.autograd.Function):
    """The identity, which takes its time in one direction."""

    @staticmethod
    def forward(ctx, x, before, after):
        ctx.after = after
        time.sleep(before)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.after)
        return gradient, None, None


class Sleepy(nn.PReLU):
    def __init__(self, before, after):
        super().__init__()
        self.times = before, after

    def forward(self, x):
        return Sleep.apply(super().forward(x), *self.times)


def test_time_is_booked_to_the_module_that_took_it():
    network = nn.Sequential()
    network.add_module("early", Sleepy(0.02, 0.0))
    network.add_module("late", Sleepy(0.0, 0.04))
    account.mark_modules(network, lambda: "net")
    x = torch.ones(3, requires_grad=True)
    network(x).sum().backward()
    with torch.profiler.profile() as measured:
        begin = time.perf_counter()
        with torch.profiler.record_function(account.STEP):
            network(x).sum().backward()
        wall = time.perf_counter() - begin
    seconds = account.sums(measured.events())
    assert seconds["net.early/PReLU", "forward"] >= 0.02
    assert seconds["net.late/PReLU", "backward"] >= 0.04
    assert seconds["net.late/PReLU", "forward"] < 0.02
    assert seconds["net.early/PReLU", "backward"] < 0.02
    assert 0.06 < sum(seconds.values()) < wall + 0.001  # nothing twice


@pytest.mark.parametrize("network", NETWORKS)
def test_an_account_names_every_part(network):
    rows = account.account(network, "smoke", warm=1, steps=1)
    parts = {row["part"]: row for row in rows}
    expected = {f"generator.{p}" for p in ("head", "upscale", "tail")}
    expected |= {"Adam", "average", "clipping", "losses"}
    if network == "srgan":
        expected |= {
            f"discriminator {state}.{part}"
            for state in ("asked", "learning")
            for part in ("blocks", "judge")
        }
        expected |= {"features of hr.blocks", "features of sr.blocks"}
        assert parts["features of hr.blocks"]["backward"] == 0
    assert expected <= parts.keys()
    both = [row["forward"] + row["backward"] for row in rows]
    assert both == sorted(both, reverse=True)
    for kind in ("convolution", "PReLU"):
        found = [r for r in rows if r["kind"] == kind]
        assert sum(r["backward"] for r in found) > 0


# --- the other tools ---------------------------------------------------------


def test_resizing_counts_the_bytes_that_differ():
    pytest.importorskip("resize_right")
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    for rows in tools.resizing(image, rounds=1).values():
        assert rows["ours"]["differing"] == 0
        others = [r["differing"] for n, r in rows.items() if n != "ours"]
        assert all(0 < share < 1 for share in others)
        # They are the same interpolation; scikit-image blurs with another.
        assert rows["Pillow"]["differing"] <= 0.5


def test_measuring_agrees_with_scikit_image():
    pytest.importorskip("torchmetrics")
    pytest.importorskip("piq")
    rows = tools.measuring(tools.photograph()[:96, :128], rounds=1)
    assert rows["ours"]["psnr_off"] < 1e-6
    assert rows["ours"]["ssim_off"] < 1e-6
    assert rows["piq"]["ssim_off"] < 1e-4
    assert 0 < rows["ours"]["ssim"] < 1


def test_photograph_has_two_megapixels():
    height, width, _ = tools.photograph().shape
    assert 2e6 < height * width < 2.1e6
    assert height % 4 == width % 4 == 0


def test_upscaling_is_timed_whole_and_in_tiles():
    rows = tools.upscaling(tools.photograph(), "smoke", rounds=1)
    assert set(rows) == {"whole", "tiles of 128", "tiles of 64"}


# --- the record --------------------------------------------------------------


def test_crops_are_timed_by_turns(monkeypatch):
    monkeypatch.setattr(tools, "worker_counts", lambda: (0, 1))
    found = tools.data_path("smoke", rounds=2, seconds=0.05)
    assert "Photos" in found
    for ways in found.values():
        assert list(ways) == ["ours", "0 workers", "1 workers"]
        for row in ways.values():
            assert row["count"] == 2 and 0 < row["low"] <= row["high"]
            assert row["seconds"] < 1


@pytest.fixture
def sections(monkeypatch, tmp_path):
    pytest.importorskip("torchmetrics")
    fakes = {"limits": lambda p: {"copy": 1.5}, "crops": lambda p: {"B": {}}}
    monkeypatch.setattr(bench, "SECTIONS", fakes)
    return tmp_path / "bench.json"


def test_sections_are_added_to_the_record(sections, capsys):
    bench.main(["limits"], "smoke", sections)
    bench.main(["crops"], "smoke", sections)
    record = json.loads(sections.read_text())
    assert record["limits"] == {"copy": 1.5}
    assert "crops" in record
    assert record["machine"] == machine.describe()
    assert record["made"].keys() == {"limits", "crops"}
    assert "copy: 1.5" in capsys.readouterr().out


def test_two_machines_are_never_mixed(sections):
    other = {"machine": {"processor": "abacus"}, "steps": "old"}
    sections.write_text(json.dumps(other))
    bench.main([], "smoke", sections)
    record = json.loads(sections.read_text())
    assert "steps" not in record
    assert {"limits", "crops"} <= record.keys()


def test_an_unknown_section_is_refused(sections):
    with pytest.raises(SystemExit, match=r"no section speed; take .*limits"):
        bench.main(["speed"], "smoke", sections)
    assert not sections.exists()


def test_a_gpu_is_refused(sections, monkeypatch):
    state = SimpleNamespace(device=torch.device("cuda", 0))
    monkeypatch.setattr(bench, "PartialState", lambda: state)
    with pytest.raises(SystemExit, match="takes cuda:0 here"):
        bench.main([], "smoke", sections)


def test_no_gpu_no_measurement():
    with pytest.raises(SystemExit, match="no GPU here; `make bench`"):
        gpu.main()


def test_each_way_on_a_gpu_is_timed_and_kept(monkeypatch, tmp_path):
    """With the processor in the place of a GPU, and small networks."""
    config, small = gpu.configuration(), load_profile("smoke")
    config.G, config.D = small.G, small.D
    config.srresnet.batch_size = config.srgan.batch_size = 2
    monkeypatch.setattr(gpu, "configuration", lambda: config)
    monkeypatch.setattr(losses, "read_vgg19", gpu.random_vgg19)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 5)
    compiled = []
    monkeypatch.setattr(
        gpu.training, "compile_networks", lambda *_: compiled.append(1)
    )
    time_steps = gpu.time_steps
    monkeypatch.setattr(
        gpu, "time_steps", lambda steps, *_: time_steps(steps, 1, 2)
    )
    monkeypatch.setattr(gpu.os, "cpu_count", lambda: 1)
    record, path = {"limits": {}}, tmp_path / "gpu.json"
    gpu.time_ways(record, path)
    assert json.loads(path.read_text()) == record
    assert len(compiled) == 2  # ours, of both networks, and no other way
    for ways in record["steps"].values():
        assert list(ways) == [gpu.USUAL, *gpu.LESS]
        for way, row in ways.items():
            assert row["count"] == 2 and row["low"] <= row["high"]
            assert row["warm_up"] > 0 and row["memory"] == 5
            assert ("waiting" in row) == (way != gpu.USUAL)


def test_a_share_of_the_rate_of_products_is_shown():
    ways = {"ours": {"seconds": 2.0, "matrix": 100.0}}
    record = {
        "operations": dict.fromkeys(NETWORKS, 50),
        "steps": {network: {"ways": ways} for network in NETWORKS},
    }
    assert [*bench.shares(record)] == [
        "srresnet: 25% of a matrix product",
        "srgan: 25% of a matrix product",
    ]


@pytest.mark.parametrize("name", ["bench", "bench_avx512", "bench_fp32"])
def test_the_shipped_records_are_whole(name):
    record = json.loads((RECORDS / f"{name}.json").read_text())
    # One without torch.compile is shown as well.
    assert bench.SECTIONS.keys() <= record.keys() | {"compiled"}
    assert record["made"].keys() | {"machine", "images", "made"} == set(record)
    for network in NETWORKS:
        found = record["steps"][network]["ways"]
        assert {"usual", "ours", "ours in fp32", "all measures"} <= set(found)
        seconds = found["ours"]["seconds"]
        booked = sum(
            row["forward"] + row["backward"]
            for row in record["account"][network]
        )
        assert 0.8 < booked / seconds < 1.5  # the profiler costs something

"""The two epochs: rates and averages by hand; then, that they learn."""

import copy
import math

import pytest
import torch
from easydict import EasyDict
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from srgan_lib import solver
from srgan_lib.config import load_profile
from srgan_lib.losses import FrozenFeatures
from srgan_lib.models import Generator
from srgan_lib.solver import (
    learning_rate,
    srgan_epoch,
    srresnet_epoch,
    update_ema,
)
from srgan_lib.training import build_state, make_accelerator

pytestmark = pytest.mark.usefixtures("one_thread")


class Features(FrozenFeatures):
    """A content network of two small layers."""

    name = "two layers"

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2)
        self.second = nn.Conv2d(4, 4, 3, stride=2)
        self.freeze()

    def forward(self, images):
        first = self.first(images)
        return [first, self.second(first.relu())]


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator()


@pytest.fixture
def config():
    config = load_profile("smoke")
    config.G.update(n_channels=4, n_blocks=1, large_kernel_size=3)
    config.D.update(n_channels=2, n_blocks=4, fc_size=4)
    return config


@pytest.fixture
def batches():
    """Five times the same two pictures: gray ramps that a network can draw."""
    draw = torch.Generator().manual_seed(0)
    hr = torch.rand(2, 3, 5, 5, generator=draw) * 2 - 1
    hr = nn.functional.interpolate(hr, size=(36, 36), mode="bilinear")
    return [(hr[..., ::4, ::4], hr)] * 5


def weights(module):
    return {key: v.clone() for key, v in module.state_dict().items()}


def moved(module, before):
    """The keys of all that differs from `before`."""
    after = module.state_dict()
    return {key for key in after if not torch.equal(after[key], before[key])}


# --- the learning rate ---------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", {0: 1, 50: 1, 99: 1}),
        ("half", {0: 1, 49: 1, 50: 0.1, 99: 0.1}),
        ("cosine", {0: 1, 50: 0.5, 25: (1 + math.sqrt(0.5)) / 2}),
        ("one_cycle", {0: 0, 15: 0.5, 30: 1, 65: 0.5}),
    ],
)
def test_schedules(schedule, rates):
    stage = EasyDict(learning_rate=2, schedule=schedule, warmup_steps=0)
    for step, rate in rates.items():
        assert learning_rate(step, 100, stage) == pytest.approx(2 * rate)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_annealing_ends_near_zero(schedule):
    stage = EasyDict(learning_rate=1, schedule=schedule, warmup_steps=0)
    rates = [learning_rate(step, 1000, stage) for step in range(1000)]
    assert max(rates) == 1 and 0 < rates[-1] < 1e-4
    assert rates[300:] == sorted(rates[300:], reverse=True)


def test_warm_up_rises_evenly_to_the_full_rate():
    stage = EasyDict(learning_rate=1, schedule="constant", warmup_steps=3)
    rates = [learning_rate(step, 100, stage) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1, 1, 1]


# --- the moving average --------------------------------------------------


def test_ema_by_hand():
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    ema = copy.deepcopy(network)
    state = network.state_dict()
    for value in state.values():
        value.fill_(0)
    ema.load_state_dict(state)
    state["0.weight"].fill_(1.0)
    state["1.running_mean"].fill_(10.0)
    state["1.num_batches_tracked"].fill_(7)
    update_ema(ema, network, step=1, decay=0.999)  # (1 + 1) / (10 + 1)
    found = ema.state_dict()
    assert found["0.weight"].item() == pytest.approx(9 / 11)
    assert found["1.running_mean"].item() == pytest.approx(90 / 11)
    assert found["1.num_batches_tracked"].item() == 7
    assert found["1.running_var"].item() == 0
    assert state["0.weight"].item() == 1  # never the other way round
    update_ema(ema, network, step=10**6, decay=0.9)
    assert found["0.weight"].item() == pytest.approx(9 / 11 * 0.9 + 0.1)


def test_ema_moves_all_weights_in_one_call():
    calls = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            calls.append(str(function))
            return function(*args, **(kwargs or {}))

    network = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(9)))
    network.append(nn.BatchNorm2d(3))
    ema = copy.deepcopy(network)
    with Watch():
        update_ema(ema, network, step=1, decay=0.9)
    assert calls == ["aten.copy_.default", "aten._foreach_lerp_.Scalar"]


# --- SRResNet ------------------------------------------------------------


def test_srresnet_learns(accelerator, config, batches):
    state = build_state(accelerator, config, "srresnet")
    before, average = weights(state.generator), weights(state.ema)
    losses = [
        figures["pixel_loss"].item()
        for _ in range(8)
        for figures in srresnet_epoch(
            accelerator, state, batches, config.srresnet, 40
        )
    ]
    assert losses[-1] < 0.8 * losses[0]
    assert state.step == 40
    assert moved(state.generator, before) == set(before)
    assert moved(state.ema, average) == set(average)
    assert moved(state.ema, state.generator.state_dict())  # it lags behind


def test_figures_of_an_srresnet_step(accelerator, config, batches):
    config.srresnet.schedule = "half"
    state = build_state(accelerator, config, "srresnet")
    epoch = srresnet_epoch(accelerator, state, batches[:1], config.srresnet, 4)
    (figures,) = epoch
    assert set(figures) == {
        *("pixel_loss", "generator_gradient", "learning_rate")
    }
    assert all(math.isfinite(v) and v > 0 for v in figures.values())
    assert figures["learning_rate"] == learning_rate(0, 4, config.srresnet)
    (group,) = state.g_optimizer.param_groups
    assert group["lr"] == figures["learning_rate"]


def test_pixel_loss_is_the_one_that_the_profile_names(
    accelerator, config, batches
):
    found = {}
    for kind in ("l1", "mse"):
        config.srresnet.pixel_loss = kind
        state = build_state(accelerator, config, "srresnet")
        with torch.no_grad():
            sr = state.generator(batches[0][0])
        error = sr - batches[0][1]
        expected = error.abs() if kind == "l1" else error.square()
        (figures,) = srresnet_epoch(
            accelerator, state, batches[:1], config.srresnet, 4
        )
        found[kind] = figures["pixel_loss"].item()
        assert found[kind] == pytest.approx(expected.mean().item(), rel=1e-3)
    assert found["l1"] != pytest.approx(found["mse"], rel=1e-2)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_gradients_norm_is_told_as_it_was_and_clipped(accelerator, clip):
    network = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=1)
    nn.init.zeros_(network.weight)
    loss = (network.weight * torch.tensor([3.0, 4.0])).sum()
    norm = solver.descend(
        accelerator, loss, network, optimizer, EasyDict(clip_norm=clip)
    )
    assert norm.item() == pytest.approx(5)
    step = 5 if clip is None else clip
    assert network.weight.norm().item() == pytest.approx(step, rel=1e-4)


def test_without_an_average_none_is_made(accelerator, config, batches):
    config.srresnet.ema_decay = None
    state = build_state(accelerator, config, "srresnet")
    assert state.ema is None
    list(srresnet_epoch(accelerator, state, batches, config.srresnet, 5))
    assert state.step == 5


# --- SRGAN ---------------------------------------------------------------


@pytest.fixture
def srgan(accelerator, config, batches):
    """(state, a function that trains an epoch), with two small layers."""
    torch.manual_seed(0)
    features = Features()
    state = build_state(accelerator, config, "srgan")
    content_weights = torch.tensor([0.5, 2.0])

    def epoch(these=batches):
        return list(
            srgan_epoch(
                accelerator,
                state,
                these,
                config.srgan,
                20,
                features,
                content_weights,
            )
        )

    return state, epoch


def test_both_networks_learn_and_the_features_do_not(srgan):
    state, epoch = srgan
    generator, critic = weights(state.generator), weights(state.discriminator)
    first, *_, last = [f for _ in range(4) for f in epoch()]
    assert state.step == 20
    assert moved(state.generator, generator) == set(generator)
    assert moved(state.discriminator, critic) == set(critic)
    assert last["generator_loss"] < first["generator_loss"]
    assert last["discriminator_loss"] < first["discriminator_loss"]


def test_figures_of_an_srgan_step(srgan, config):
    _, epoch = srgan
    figures = epoch()[-1]
    assert set(figures) == {
        *("pixel_loss", "pixel_weighted", "grid_loss", "grid_weighted"),
        *("mesh_loss", "mesh_weighted", "tint_loss", "tint_weighted"),
        *("chroma_loss", "chroma_weighted"),
        *("content_loss", "content_weighted"),
        *("adversarial_loss", "adversarial_weighted"),
        *("generator_loss", "discriminator_loss", "D(real)", "D(fake)"),
        *("generator_gradient", "discriminator_gradient", "learning_rate"),
    }
    f = {key: float(value) for key, value in figures.items()}
    assert all(math.isfinite(value) for value in f.values())
    assert 0 < f["D(real)"] < 1 and 0 < f["D(fake)"] < 1
    stage = config.srgan
    assert f["pixel_weighted"] == pytest.approx(
        stage.pixel_weight * f["pixel_loss"]
    )
    assert f["grid_weighted"] == pytest.approx(
        stage.grid_weight * f["grid_loss"]
    )
    assert f["mesh_weighted"] == pytest.approx(
        stage.mesh_weight * f["mesh_loss"]
    )
    assert f["tint_weighted"] == pytest.approx(
        stage.tint_weight * f["tint_loss"]
    )
    assert f["chroma_weighted"] == pytest.approx(
        stage.chroma_weight * f["chroma_loss"]
    )
    assert f["adversarial_weighted"] == pytest.approx(
        stage.beta * f["adversarial_loss"]
    )
    # Weights of 0.5 and 2 on two terms whose mean is the content loss.
    assert 0.5 <= f["content_weighted"] / (2 * f["content_loss"]) <= 2
    assert f["generator_loss"] == pytest.approx(
        f["pixel_weighted"]
        + f["grid_weighted"]
        + f["mesh_weighted"]
        + f["tint_weighted"]
        + f["chroma_weighted"]
        + f["content_weighted"]
        + f["adversarial_weighted"],
        rel=1e-3,
    )


def test_each_turn_leaves_the_other_networks_gradients_alone(
    srgan, monkeypatch
):
    state, epoch = srgan
    descend, turns = solver.descend, []

    def gradients(network):
        return [
            None if p.grad is None else p.grad.clone()
            for p in network.parameters()
        ]

    def watched(accelerator, loss, network, optimizer, stage):
        other = (
            state.discriminator
            if network is state.generator
            else state.generator
        )
        before, held = gradients(other), weights(other)
        norm = descend(accelerator, loss, network, optimizer, stage)
        for old, new in zip(before, gradients(other), strict=True):
            assert (old is None) == (new is None)
            assert old is None or torch.equal(old, new)
        assert not moved(other, held)
        turns.append(network)
        return norm

    monkeypatch.setattr(solver, "descend", watched)
    epoch()
    assert turns == [state.generator, state.discriminator] * 5
    assert all(p.requires_grad for p in state.discriminator.parameters())


@pytest.mark.parametrize(
    "term",
    ["pixel", "grid", "mesh", "tint", "chroma", "content", "adversarial"],
)
def test_the_generator_feels_each_term(srgan, config, monkeypatch, term):
    """A loss that was detached would train nothing and say nothing."""
    _, epoch = srgan
    config.srgan.pixel_weight = 1.0 if term == "pixel" else 0
    config.srgan.grid_weight = 1.0e4 if term == "grid" else 0
    config.srgan.mesh_weight = 1.0 if term == "mesh" else 0
    config.srgan.tint_weight = 1.0e3 if term == "tint" else 0
    config.srgan.chroma_weight = 1.0e3 if term == "chroma" else 0
    config.srgan.beta = 1.0 if term == "adversarial" else 0
    if term != "content":
        monkeypatch.setattr(
            solver, "content_terms", lambda features, sr, hr: torch.zeros(2)
        )
    figures = epoch()[0]
    assert figures[f"{term}_weighted"] == figures["generator_loss"] > 0
    assert figures["generator_gradient"] > 1e-4


def test_the_discriminator_learns_at_its_own_pace(srgan, config):
    state, epoch = srgan
    config.srgan.d_pace = 0.25
    rate = epoch()[-1]["learning_rate"]
    assert state.g_optimizer.param_groups[0]["lr"] == rate
    assert state.d_optimizer.param_groups[0]["lr"] == rate / 4


def test_both_networks_are_told_to_train(srgan):
    state, epoch = srgan
    state.generator.eval()
    state.discriminator.eval()
    epoch()
    assert state.generator.training and state.discriminator.training
    assert isinstance(state.generator, Generator)

"""One epoch of training: of SRResNet, and of SRGAN.

Both are generators in Python's sense too: after each step they hand its
figures to the caller, who shows them, stores them, and may save.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn, optim

from srgan_lib.losses import (
    adversarial_loss,
    chroma_loss,
    content_terms,
    discriminator_loss,
    grid_loss,
    mesh_loss,
    pixel_loss,
    tint_loss,
)


@dataclass
class TrainingState:
    """All that changes while a network learns."""

    generator: nn.Module
    g_optimizer: optim.Optimizer
    ema: nn.Module | None = None  # average of the generator's weights
    discriminator: nn.Module | None = None
    d_optimizer: optim.Optimizer | None = None
    step: int = 0


def learning_rate(step, total, stage):
    """The learning rate of step `step` (from 0) out of `total`.

    It rises over `warmup_steps`; then, by `schedule`: stays ("constant"),
    falls to a tenth after half the steps ("half"), along half a cosine
    ("cosine"), or rises for three tenths and falls ("one_cycle").
    """
    peak, part = stage.learning_rate, step / total
    warmup = min(1, (step + 1) / (stage.warmup_steps + 1))
    if stage.schedule == "half":
        return peak * warmup * (1 if part < 0.5 else 0.1)
    if stage.schedule == "cosine":
        return peak * warmup * (1 + math.cos(math.pi * part)) / 2
    if stage.schedule == "one_cycle":
        turn = part / 0.3 if part < 0.3 else 1 - (part - 0.3) / 0.7
        return peak * warmup * (1 - math.cos(math.pi * turn)) / 2
    return peak * warmup


def set_learning_rate(optimizer, value):
    for group in optimizer.param_groups:
        group["lr"] = value


@torch.no_grad()
def update_ema(ema, generator, step, decay):
    """Move the average a little toward the generator, buffers included.

    The decay starts small, so that the first weights are soon forgotten.
    """
    decay = min(decay, (1 + step) / (10 + step))
    averages, current = [], []
    for average, now in zip(
        (*ema.parameters(), *ema.buffers()),
        (*generator.parameters(), *generator.buffers()),
        strict=True,
    ):
        if average.is_floating_point():
            averages.append(average)
            current.append(now)
        else:  # batch norm's counters
            average.copy_(now)
    # All in one call: on a GPU two hundred calls take longer than their work.
    torch._foreach_lerp_(averages, current, 1 - decay)


def descend(accelerator, loss, network, optimizer, stage):
    """One step downhill; returns the norm of the gradient before clipping."""
    optimizer.zero_grad()
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(
        network.parameters(), stage.clip_norm or math.inf
    )
    optimizer.step()
    return norm


def close_step(accelerator, state, stage):
    """Count the step, and let the average follow the generator."""
    state.step += 1
    if state.ema is not None:
        network = accelerator.unwrap_model(state.generator)
        update_ema(state.ema, network, state.step, stage.ema_decay)


def srresnet_epoch(accelerator, state, batches, stage, total):
    """One epoch of SRResNet: the pixel loss alone.

    batches of lr (N, 3, h, w) ImageNet-normalized and hr (N, 3, H, W) in
    [-1, 1]; total: steps of the whole run. Yields the figures of each step.
    """
    state.generator.train()
    for lr, hr in batches:
        rate = learning_rate(state.step, total, stage)
        set_learning_rate(state.g_optimizer, rate)

        sr = state.generator(lr)
        loss = pixel_loss(sr, hr, stage.pixel_loss)
        norm = descend(
            accelerator, loss, state.generator, state.g_optimizer, stage
        )

        close_step(accelerator, state, stage)
        yield {
            "pixel_loss": loss.detach(),
            "generator_gradient": norm,
            "learning_rate": rate,
        }


def srgan_epoch(
    accelerator, state, batches, stage, total, features, content_weights
):
    """One epoch of SRGAN: the generator's turn, then the discriminator's.

    content_weights: (L,), one for each layer of `features`, or (1,).
    Otherwise as `srresnet_epoch`.
    """
    state.generator.train()
    state.discriminator.train()
    # The generator's turn needs no gradients of the discriminator's
    # weights, so it asks the bare network, not its distributed wrapper.
    critic = accelerator.unwrap_model(state.discriminator)
    for lr, hr in batches:
        rate = learning_rate(state.step, total, stage)
        set_learning_rate(state.g_optimizer, rate)
        set_learning_rate(state.d_optimizer, rate * stage.d_pace)

        # 1. The generator: look right, and be taken for real.
        sr = state.generator(lr)
        critic.requires_grad_(False)
        with accelerator.autocast():
            adversarial = adversarial_loss(critic(sr).float())
            terms = content_terms(features, sr, hr)
        critic.requires_grad_(True)
        scale = hr.shape[-1] // lr.shape[-1]
        losses = {
            "pixel": pixel_loss(sr, hr, stage.pixel_loss),
            "grid": grid_loss(sr, hr, scale),
            "mesh": mesh_loss(sr, hr, scale),
            "tint": tint_loss(sr, hr),
            "chroma": chroma_loss(sr, hr),
        }
        weighted = {k: stage[f"{k}_weight"] * v for k, v in losses.items()}
        losses |= {"content": terms.mean(), "adversarial": adversarial}
        weighted["content"] = (content_weights * terms).sum()
        weighted["adversarial"] = stage.beta * adversarial
        loss = sum(weighted.values())
        g_norm = descend(
            accelerator, loss, state.generator, state.g_optimizer, stage
        )

        # 2. The discriminator: tell hr from sr, which is now a constant.
        # Both in one call, for a distributed wrapper wants one backward
        # pass for each forward pass.
        real_logits, fake_logits = state.discriminator(hr, sr.detach())
        d_loss = discriminator_loss(real_logits, fake_logits)
        d_norm = descend(
            accelerator, d_loss, state.discriminator, state.d_optimizer, stage
        )

        close_step(accelerator, state, stage)
        yield {
            **{f"{k}_loss": v.detach() for k, v in losses.items()},
            **{f"{k}_weighted": v.detach() for k, v in weighted.items()},
            "generator_loss": loss.detach(),
            "discriminator_loss": d_loss.detach(),
            "D(real)": real_logits.detach().sigmoid().mean(),
            "D(fake)": fake_logits.detach().sigmoid().mean(),
            "generator_gradient": g_norm,
            "discriminator_gradient": d_norm,
            "learning_rate": rate,
        }

"""What was tried on top of ours and not kept; and ours, a saving undone."""

import torch
from torch import nn

from srgan_lib import training


class LerpPReLU(nn.PReLU):
    """PReLU of one slope as one interpolation: between relu(x) and x."""

    def forward(self, x):
        return torch.lerp(x.relu(), x, self.weight.to(x.dtype))


class OwnGradient(torch.autograd.Function):
    """PReLU of one slope, with a backward pass that reads x once."""

    @staticmethod
    def forward(ctx, x, slope):
        ctx.save_for_backward(x, slope)
        return nn.functional.leaky_relu(x, slope.item())

    @staticmethod
    def backward(ctx, gradient):
        x, slope = ctx.saved_tensors
        to_x = torch.ops.aten.leaky_relu_backward(
            gradient, x, slope.item(), False
        )
        to_slope = torch.vdot(gradient.flatten(), x.clamp(max=0).flatten())
        return to_x, to_slope.to(slope.dtype).reshape(1)


class OwnPReLU(nn.PReLU):
    def forward(self, x):
        return OwnGradient.apply(x, self.weight)


def replace_prelu(network, kind):
    for module in network.modules():
        if type(module) is nn.PReLU:
            module.__class__ = kind


PRELUS = {
    "PReLU as one interpolation": LerpPReLU,
    "PReLU with a gradient of its own": OwnPReLU,
}


def keep_inputs(run):
    """Let no activation of the discriminator overwrite its input."""
    for module in run.state.discriminator.modules():
        if isinstance(module, nn.LeakyReLU):
            module.inplace = False


def differentiate_targets(run):
    """Compute the features of hr with a gradient, which nobody asks for."""
    forward = run.features.forward

    @torch.enable_grad()
    def with_gradient(images):
        if not images.requires_grad:
            images = images.detach().requires_grad_()
        return forward(images)

    run.features.forward = with_gradient


def differentiate_asked(run):
    """Compute gradients of the discriminator's weights when it is asked."""
    discriminator = run.state.discriminator
    discriminator.requires_grad_ = lambda needed: discriminator


def widen_features(run):
    """Let the content network compute in 32 bits."""
    device = run.accelerator.device.type
    run.features.forward = torch.autocast(device, enabled=False)(
        run.features.forward
    )


UNDONE = {  # savings of an SRGAN step, each of them undone
    "activations not in place": keep_inputs,
    "gradient of the features of hr": differentiate_targets,
    "gradients of the asked discriminator": differentiate_asked,
    "content network in fp32": widen_features,
}


def apply(attempt, run):
    """Make the change of that name to a run; none if it is None."""
    if attempt == "torch.compile":
        training.compile_networks(run.accelerator, run.state)
    elif attempt in PRELUS:
        replace_prelu(run.state.generator, PRELUS[attempt])
    elif attempt is not None:
        UNDONE[attempt](run)

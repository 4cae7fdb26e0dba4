"""Saving and loading: whole files or none, and never any code."""

import io
import random

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from srgan_lib.errors import UserError
from srgan_lib.files import atomic_write


def save_weights(path, module, half=False, **metadata):
    """Write a module's weights as safetensors; half: in float16.

    metadata: strings that are stored beside them.
    """
    kind = torch.float16 if half else torch.float32
    state = {
        key: value.detach()
        .to("cpu", kind if value.is_floating_point() else None)
        .contiguous()
        for key, value in module.state_dict().items()
    }
    with atomic_write(path) as temporary:
        # Bytes first: Python's own write tells a full disk from a bug.
        temporary.write_bytes(save(state, metadata=metadata))


def read_weights(path):
    """(state dict, metadata) of a .safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}
            return state, file.metadata() or {}
    except FileNotFoundError as error:
        raise UserError(f"There are no weights at {path}.") from error
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is no complete .safetensors file ({error}); save or "
            "copy it again."
        ) from error


def load_weights(module, path):
    """Load weights strictly: every key and every shape must fit."""
    state, metadata = read_weights(path)
    expected = module.state_dict()
    for key in sorted(expected.keys() | state.keys()):
        ours, theirs = (
            tuple(s[key].shape) if key in s else None
            for s in (expected, state)
        )
        if ours != theirs:
            raise UserError(
                f"{path} holds another architecture: {key} has the shape "
                f"{theirs} there, and {ours} in this "
                f"{type(module).__name__}."
            )
    module.load_state_dict(state)
    return metadata


def random_states():
    """Every random generator's state, in types that load without code."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    states = {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states):
    """Put back what `random_states` took."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def save_checkpoint(path, state):
    """Write a training state: tensors, numbers, strings, lists, tables."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path):
    """Read a training state; nothing in the file is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"There is no checkpoint at {path}.") from error
    except PermissionError as error:
        raise UserError(
            f"{path} may not be read; change its permissions."
        ) from error
    except MemoryError:
        raise  # it may be whole
    except Exception as error:
        raise UserError(
            f"{path} is no complete checkpoint of this project; delete it "
            "to train that run from its start."
        ) from error

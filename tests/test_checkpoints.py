"""Files of weights and states: whole or not at all, exact, never code."""

import functools
import pickle
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from srgan_lib.checkpoints import (
    load_checkpoint,
    load_weights,
    random_states,
    read_weights,
    restore_random_states,
    save_checkpoint,
    save_weights,
)
from srgan_lib.errors import UserError


class Network(nn.Sequential):
    """Weights, and buffers of two kinds."""

    def __init__(self, channels=3):
        super().__init__(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels))


@pytest.fixture
def network():
    torch.manual_seed(1)
    network = Network()
    network(torch.randn(4, 3, 8, 8))  # moves the statistics
    return network.to(memory_format=torch.channels_last)


def equal(a, b):
    """Whether two states are the same, to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


# --- weights -------------------------------------------------------------


def test_weights_come_back_exactly_with_their_metadata(tmp_path, network):
    path = tmp_path / "folder" / "a.safetensors"
    save_weights(path, network, architecture="small", note="é")
    other = Network()
    assert load_weights(other, path) == {"architecture": "small", "note": "é"}
    assert equal(dict(other.state_dict()), dict(network.state_dict()))
    assert other.state_dict()["1.num_batches_tracked"] == 1
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_half_precision_halves_the_file(tmp_path, network):
    big, small = tmp_path / "big", tmp_path / "small"
    wide = Network(256)
    save_weights(big, wide)
    save_weights(small, wide, half=True)
    assert small.stat().st_size < 0.6 * big.stat().st_size
    state, _ = read_weights(small)
    assert state["0.weight"].dtype == torch.float16
    assert state["1.num_batches_tracked"].dtype == torch.int64
    other = Network(256)
    load_weights(other, small)
    for key, value in other.state_dict().items():
        assert value.dtype == wide.state_dict()[key].dtype
    torch.testing.assert_close(
        other[0].weight, wide[0].weight, atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda s: s.pop("1.running_var"), "1.running_var"),
        (lambda s: s.update(extra=torch.ones(1)), "extra"),
        (lambda s: s.update({"0.bias": torch.ones(4)}), "0.bias"),
        (lambda s: s.update({"0.bias": torch.ones(3, 1)}), "0.bias"),
    ],
)
def test_weights_load_strictly(tmp_path, network, change, key):
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    change(state)
    path = tmp_path / "a.safetensors"
    save_file(state, path)
    with pytest.raises(UserError, match=f"another architecture: {key}") as e:
        load_weights(Network(), path)
    assert str(path) in str(e.value)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights_are_refused(tmp_path, network, keep):
    path = tmp_path / "a.safetensors"
    save_weights(path, network)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"is no complete \.safetensors"):
        load_weights(Network(), path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no weights at .*a\.safetensors"):
        read_weights(tmp_path / "a.safetensors")


# --- checkpoints ---------------------------------------------------------


def training_state(network):
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    network(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    return {
        "parts": {
            "generator": network.state_dict(),
            "g_optimizer": optimizer.state_dict(),
        },
        "step": 7,
        "seconds": 1.25,
        "pending": [{"pixel_loss": 0.5, "D(real)": 1e-9}],
        "content_weights": None,
        "random_states": random_states(),
    }


def test_a_checkpoint_comes_back_exactly(tmp_path, network):
    state = training_state(network)
    save_checkpoint(tmp_path / "c.pt", state)
    assert equal(load_checkpoint(tmp_path / "c.pt"), state)


@pytest.mark.parametrize("part", [0, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path, network, part):
    path = tmp_path / "c.pt"
    save_checkpoint(path, training_state(network))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(UserError, match=r"c\.pt is no complete checkpoint"):
        load_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint at .*c\.pt"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(
    tmp_path, network, monkeypatch
):
    """Whoever is told to delete it loses days."""
    path = tmp_path / "c.pt"
    save_checkpoint(path, training_state(network))

    def fails(error):
        def load(*args, **options):
            raise error

        return load

    monkeypatch.setattr(torch, "load", fails(PermissionError(13, "no")))
    with pytest.raises(UserError, match=r"c\.pt may not be read; change"):
        load_checkpoint(path)
    monkeypatch.setattr(torch, "load", fails(MemoryError()))
    with pytest.raises(MemoryError):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "wrap", [functools.partial(pickle.dump, protocol=2), torch.save]
)
def test_nothing_in_a_checkpoint_is_executed(tmp_path, wrap):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    with open(tmp_path / "c.pt", "wb") as file:
        wrap({"parts": Evil()}, file)
    with pytest.raises(UserError, match="is no complete checkpoint"):
        load_checkpoint(tmp_path / "c.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("write", ["weights", "checkpoint"])
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path, network, monkeypatch, write
):
    path = tmp_path / "file"

    def save():
        if write == "weights":
            save_weights(path, network)
        else:
            save_checkpoint(path, training_state(network))

    save()
    before = path.read_bytes()

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        save()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_named(tmp_path, network):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"file/c\.pt cannot be written"):
        save_checkpoint(tmp_path / "file" / "c.pt", training_state(network))


# --- random states -------------------------------------------------------


def draws():
    return (
        random.random(),
        random.gauss(0, 1),  # keeps a second one for later
        np.random.standard_normal(),
        torch.rand(3).tolist(),
    )


def test_random_states_go_on_exactly_through_a_file(tmp_path):
    draws()
    save_checkpoint(tmp_path / "c.pt", random_states())
    after = [draws() for _ in range(3)]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert draws() != after[0]
    restore_random_states(load_checkpoint(tmp_path / "c.pt"))
    assert [draws() for _ in range(3)] == after

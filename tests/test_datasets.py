"""Crops: aligned, repeatable, in range; epochs that can be resumed."""

import numpy as np
import pytest
import torch
from easydict import EasyDict

from srgan_lib.datasets import EpochBatches, ImageStore, SRDataset
from srgan_lib.errors import UserError
from srgan_lib.images import (
    denormalize_sr,
    normalize_hr,
    normalize_lr,
    to_tensor,
    write_image,
)


def random_image(height, width, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def make(tmp_path):
    """make(scale=4, ...): a dataset of three images.

    hr is lr with every pixel repeated scale x scale times, so that a crop
    of hr tells where it was taken.
    """

    def dataset(
        scale=4, crop_size=None, sizes=((12, 9), (10, 14), (8, 8)), **changes
    ):
        pairs = []
        for k, size in enumerate(sizes):
            lr = random_image(*size, seed=k)
            hr = lr.repeat(scale, axis=0).repeat(scale, axis=1)
            pairs.append((tmp_path / f"{k}.png", tmp_path / f"{k}x.png"))
            write_image(pairs[-1][0], hr)
            write_image(pairs[-1][1], lr)
        config = EasyDict(
            scaling_factor=scale,
            crops_per_image=20,
            augment=False,
            seed=0,
            cache_gigabytes=1,
        )
        config.update(changes)
        return SRDataset(pairs, config, crop_size or 6 * scale)

    return dataset


def enlarged(lr, scale):
    return lr.repeat(scale, axis=0).repeat(scale, axis=1)


# --- crops ---------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("augment", [False, True])
def test_lr_and_hr_show_the_same_place(make, scale, augment):
    dataset = make(scale, augment=augment)
    for n in range(60):
        lr, hr = dataset.crop(n)
        assert lr.shape == (6, 6, 3) and lr.dtype == np.uint8
        np.testing.assert_array_equal(hr, enlarged(lr, scale))


def places(dataset, n):
    """Where crop n is found in its image: [(y, x, turns, flipped)]."""
    image = dataset.store[dataset.pairs[n % len(dataset.pairs)][1]]
    lr, _ = dataset.crop(n)
    return [
        (y, x, turns, flipped)
        for y in range(image.shape[0] - 5)
        for x in range(image.shape[1] - 5)
        for turns in range(4)
        for flipped in (False, True)
        if np.array_equal(
            lr,
            np.rot90(image[y : y + 6, x : x + 6], turns)[
                :, :: -1 if flipped else 1
            ],
        )
    ]


def test_crops_come_from_everywhere_in_their_image(make):
    dataset = make(sizes=((8, 7),))
    found = {places(dataset, n)[0] for n in range(100)}
    # All 3 x 2 places, upright, corners included.
    assert found == {(y, x, 0, False) for y in range(3) for x in range(2)}


def test_augmented_crops_are_turned_and_flipped_in_all_eight_ways(make):
    dataset = make(sizes=((6, 6),), augment=True)
    found = {places(dataset, n)[0][2:] for n in range(100)}
    assert len(found) == 8


def test_crop_n_is_of_image_n_modulo_images(make):
    dataset = make()
    assert len(dataset) == 3 * 20
    assert all(places(dataset, n) for n in (0, 1, 2, 3, 4, 61, 10**9))


def test_one_number_one_crop(make):
    a, b, other = make(), make(), make(seed=1)
    backwards = {n: b.crop(n) for n in reversed(range(30))}
    for n in range(30):
        for one, two in zip(a.crop(n), backwards[n], strict=True):
            np.testing.assert_array_equal(one, two)
    differ = [
        not np.array_equal(a.crop(n)[0], other.crop(n)[0]) for n in range(30)
    ]
    assert sum(differ) > 15
    # The same image again, in the next epoch: other places.
    again = [places(a, n)[0] for n in range(0, 60, 3)]
    assert len(set(again)) > 5


def test_items_are_in_the_ranges_the_networks_see(make):
    dataset = make()
    for n in range(6):
        lr, hr = dataset[n]
        small, large = dataset.crop(n)
        assert lr.dtype == hr.dtype == torch.float32
        assert torch.equal(lr, normalize_lr(to_tensor(small)))
        assert torch.equal(hr, normalize_hr(to_tensor(large)))
        assert torch.equal(denormalize_sr(hr), to_tensor(large))
        assert -1 <= hr.min() < -0.5 and 0.5 < hr.max() <= 1
        assert -2.2 < lr.min() < -1 and 1 < lr.max() < 2.7


def test_an_image_smaller_than_a_crop_is_refused_by_name(make):
    dataset = make(crop_size=36)  # 9 x 9 of lr
    assert dataset.crop(0)[0].shape == (9, 9, 3)
    with pytest.raises(UserError, match=r"2\.png is too small .* 36 pixels"):
        dataset.crop(2)


# --- the store -----------------------------------------------------------


def test_the_store_keeps_images_up_to_its_limit(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "srgan_lib.datasets.read_image",
        lambda path: read.append(path) or random_image(10, 10, path),
    )
    store = ImageStore(limit=650)  # two images of 300 bytes
    for _ in range(3):
        for path in (1, 2, 3):
            np.testing.assert_array_equal(
                store[path], random_image(10, 10, path)
            )
    assert read == [1, 2, 3, 3, 3]
    assert store.held == sum(i.nbytes for i in store.images.values()) == 600


def test_a_store_without_room_reads_every_time(make, monkeypatch):
    dataset = make(cache_gigabytes=0)
    dataset.crop(0)
    assert dataset.store.held == 0 and not dataset.store.images


# --- epochs --------------------------------------------------------------


def numbers(dataset, epoch, first=0, batch_size=8):
    steps = len(dataset) // batch_size
    return list(EpochBatches(dataset, batch_size, epoch, steps, first))


def test_an_epoch_has_each_crop_once(make):
    dataset = make()  # 60 crops
    drawn = [n for b in numbers(dataset, 3, batch_size=10) for n in b]
    assert sorted(drawn) == list(range(180, 240))
    assert drawn != sorted(drawn)
    images = np.bincount(np.array(drawn) % 3)
    assert images.tolist() == [20, 20, 20]


def test_batches_are_full_and_counted(make):
    batches = numbers(make(), 0)
    assert [len(b) for b in batches] == [8] * 7
    assert len(EpochBatches(make(), 8, 0, 7, first=3)) == 4
    assert all(type(n) is int for n in batches[0])


def test_epochs_differ_in_order_and_can_be_repeated(make):
    dataset = make()
    orders = [
        [n % 60 for b in numbers(dataset, e) for n in b] for e in range(3)
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert numbers(dataset, 1) == numbers(make(), 1)
    assert numbers(dataset, 1) != numbers(make(seed=1), 1)


@pytest.mark.parametrize("first", [0, 3, 7])
def test_an_epoch_goes_on_where_it_stopped(make, first):
    assert numbers(make(), 2, first) == numbers(make(), 2)[first:]

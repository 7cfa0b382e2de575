"""Batches: an order that can be repeated, symmetries that are the square's, digits that stay digits."""

import copy
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from particles.loader import (
    JITTER,
    Augment,
    Batch,
    EpochSampler,
    ParticleData,
    PixelData,
    affine,
    as_input,
    augmented,
    class_numbers,
    dihedral,
    in_batches,
    resolve_augment,
)
from particles.loader import (
    turned as by_quarters,
)
from particles.pixels import PixelStore, write_shard


@pytest.fixture
def store(tmp_path: Path) -> PixelStore:
    everything = np.random.default_rng(2).integers(0, 256, (300, 5, 5)).astype(np.uint8)
    everything[:, 0, 0] = np.arange(300) % 256
    for n, part in enumerate(np.split(everything, [130])):
        write_shard(tmp_path / f"{n}.npy", part)
    return PixelStore([tmp_path / "0.npy", tmp_path / "1.npy"])


def order(n: int, seed: int, epoch: int) -> list[int]:
    sampler = EpochSampler(n, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_each_epoch_is_a_permutation() -> None:
    for epoch in range(3):
        assert sorted(order(50, 0, epoch)) == list(range(50))
    assert len(EpochSampler(50, 0)) == 50


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {(seed, epoch): order(50, seed, epoch) for seed, epoch in product(range(3), range(3))}
    assert len({tuple(o) for o in orders.values()}) == 9
    np.random.seed(1)  # noqa: NPY002  (the global state must not matter)
    torch.manual_seed(1)
    walked = EpochSampler(50, 1)
    for epoch in range(3):
        walked.set_epoch(epoch)
        assert list(walked) == list(walked) == orders[1, epoch], "walked through or jumped to"


def test_as_input_is_zero_to_one() -> None:
    x = as_input(np.array([[[0, 51], [102, 255]]], np.uint8))
    assert (x.shape, x.dtype) == ((1, 1, 2, 2), torch.float32)
    assert x.flatten().tolist() == pytest.approx([0, 0.2, 0.4, 1])


def test_a_batch_holds_what_was_asked_for(store: PixelStore) -> None:
    positions, targets = np.array([299, 7, 7, 140]), np.array([4, 5, 6, -1])
    batch = PixelData(store, positions, targets).__getitems__([3, 0, 2])
    np.testing.assert_array_equal(batch["x"][:, 0].mul(255).round().numpy(), store[[140, 299, 7]])
    assert batch["y"].tolist() == [-1, 4, 6]
    assert batch["measures"].shape == (3, 0)
    assert PixelData(store, positions).__getitems__([1])["y"].tolist() == [-1]
    measures = np.arange(8, dtype=np.float32).reshape(4, 2)
    batch = PixelData(store, positions, targets, measures).__getitems__([3, 0, 2])
    assert batch["measures"].tolist() == [[6, 7], [0, 1], [4, 5]]


def test_in_batches_walks_in_order(store: PixelStore) -> None:
    positions = np.array([5, 200, 1, 0, 299])
    parts = list(in_batches(store, positions, 2))
    assert [(part.start, part.stop) for part, _ in parts] == [(0, 2), (2, 4), (4, 5)]
    np.testing.assert_array_equal(torch.cat([x for _, x in parts]), as_input(store[positions]))


def data(store: PixelStore, n: int, batch_size: int) -> ParticleData:
    rows = PixelData(store, np.arange(n))
    return ParticleData(rows, rows, batch_size, seed=3, augment="none")


def rows_of(batch: Batch) -> list[int]:
    """The store marks each of its images in a corner."""
    return batch["x"][:, 0, 0, 0].mul(255).round().int().tolist()


@pytest.mark.parametrize(
    ("n", "sizes"), [(1, [1]), (4, [4]), (5, [4]), (6, [4, 2]), (8, [4, 4]), (9, [4, 4]), (3, [3])]
)
def test_only_a_last_batch_of_one_is_dropped(store: PixelStore, n: int, sizes: list[int]) -> None:
    assert [len(batch["x"]) for batch in data(store, n, 4).train_dataloader()] == sizes
    everything = [row for batch in data(store, n, 4).val_dataloader() for row in rows_of(batch)]
    assert everything == list(range(n)), "validation drops nothing and keeps the order"


def test_training_follows_the_sampler(store: PixelStore) -> None:
    loader = data(store, 20, 8).train_dataloader()
    seen = [row for batch in loader for row in rows_of(batch)]
    assert seen == order(20, 3, 0)
    loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
    assert [row for batch in loader for row in rows_of(batch)] == order(20, 3, 1)


def test_turned_is_by_quarters_counterclockwise() -> None:
    x, quarters = torch.rand(8, 1, 5, 5), torch.tensor([0, 1, 2, 3, 3, 1, 0, 2])
    for one, of, k in zip(by_quarters(x, quarters), x, quarters, strict=True):
        assert torch.equal(one, of.rot90(int(k), (-2, -1)))


SQUARE = np.arange(16, dtype=np.float32).reshape(4, 4)


def turned(which: int, image: np.ndarray = SQUARE) -> np.ndarray:
    return dihedral(torch.tensor(image.copy())[None, None], torch.tensor([which]))[0, 0].numpy()


def test_dihedral_is_all_turns_and_mirrors() -> None:
    wanted = [np.rot90(side, k) for side in (SQUARE, np.fliplr(SQUARE)) for k in range(4)]
    assert {turned(i).tobytes() for i in range(8)} == {w.tobytes() for w in wanted}


def test_dihedral_says_which() -> None:
    np.testing.assert_array_equal(turned(0), SQUARE)
    np.testing.assert_array_equal(turned(1), SQUARE.T)
    np.testing.assert_array_equal(turned(2), np.flipud(SQUARE))
    np.testing.assert_array_equal(turned(4), np.fliplr(SQUARE))
    np.testing.assert_array_equal(turned(6), np.rot90(SQUARE, 2))
    np.testing.assert_array_equal(turned(3), np.flipud(SQUARE.T), "transposed first")


def test_dihedral_is_a_group() -> None:
    eight = {turned(i).tobytes() for i in range(8)}
    assert len(eight) == 8
    table = [[turned(b, turned(a)).tobytes() for b in range(8)] for a in range(8)]
    assert all(set(row) == eight for row in table), "closed, and each has an inverse"


def test_dihedral_treats_each_image_by_itself() -> None:
    x = torch.tensor(SQUARE).repeat(8, 1, 1, 1)
    both = dihedral(x, torch.arange(8))
    for i in range(8):
        np.testing.assert_array_equal(both[i, 0].numpy(), turned(i))


def test_augmented_draws_all_eight_evenly() -> None:
    torch.manual_seed(0)
    drawn = augmented(torch.tensor(SQUARE).repeat(1600, 1, 1, 1), "dihedral")
    counts = [(drawn[:, 0].numpy() == turned(i)).all(axis=(1, 2)).sum() for i in range(8)]
    assert counts == pytest.approx([200] * 8, abs=60)
    assert sum(counts) == 1600


def blobs(n: int, size: int = 28) -> torch.Tensor:
    x = torch.zeros(n, 1, size, size)
    x[:, :, size // 2 - 3 : size // 2 + 3, size // 2 - 3 : size // 2 + 3] = 1
    return x


def centers(x: torch.Tensor) -> torch.Tensor:
    grid = torch.arange(x.shape[-1], dtype=torch.float32) + 0.5
    total = x.sum(dim=(1, 2, 3))
    return torch.stack([(x.sum(dim=(1, k)) * grid).sum(dim=1) / total for k in (2, 3)], dim=1)


def test_affine_jitters_but_a_digit_stays_in_place() -> None:
    torch.manual_seed(0)
    moved = affine(blobs(400), JITTER["affine"])
    assert moved.shape == (400, 1, 28, 28)
    assert 0 <= moved.min() <= moved.max() <= 1
    shift = centers(moved) - 14
    assert shift.abs().max() < 3.5, "8 % of 28 px, a little more where it is zoomed"
    assert 0.8 < shift.abs().mean() < 1.6
    assert shift.mean(dim=0).abs().max() < 0.25, "no direction is preferred"
    area = moved.sum(dim=(1, 2, 3)) / 36
    assert 0.7 < area.min() < 0.9
    assert 1.1 < area.max() < 1.5
    assert area.mean() == pytest.approx(1, abs=0.05)


def slants(x: torch.Tensor) -> torch.Tensor:
    """Slope of each image's columns over its rows, from its second moments."""
    at = torch.arange(x.shape[-1], dtype=torch.float32) + 0.5 - centers(x).unsqueeze(2)  # (N, column or row, S)
    image = x[:, 0]
    both = torch.einsum("nij,ni,nj->n", image, at[:, 1], at[:, 0])
    return both / torch.einsum("nij,ni->n", image, at[:, 1] ** 2)


def test_wide_affine_slants_as_hands_do() -> None:
    torch.manual_seed(0)
    strokes = torch.zeros(400, 1, 28, 28)
    strokes[:, :, 6:22, 13:15] = 1
    narrow, wide = (slants(augmented(strokes, how)) for how in ("affine", "wide-affine"))
    # a rotation by up to 20 degrees and a shear of up to 0.5, both even: deviations add as squares
    assert wide.std() == pytest.approx(((np.deg2rad(20) ** 2 + 0.5**2) / 3) ** 0.5, abs=0.05)
    assert narrow.std() == pytest.approx(((np.deg2rad(10) ** 2 + 0.1**2) / 3) ** 0.5, abs=0.02)
    assert wide.mean().abs() < 0.06, "no direction is preferred"


def test_affine_repeats_the_edge_and_can_be_repeated() -> None:
    flat = torch.full((8, 1, 12, 12), 0.53)
    assert affine(flat, JITTER["wide-affine"]).sub(0.53).abs().max() < 1e-6, "nothing black is drawn in"
    torch.manual_seed(5)
    first = affine(blobs(4), JITTER["affine"])
    torch.manual_seed(5)
    assert torch.equal(first, affine(blobs(4), JITTER["affine"]))
    assert not torch.equal(first[0], first[1]), "each image is moved by itself"


def test_no_augmentation_changes_nothing(store: PixelStore) -> None:
    x = torch.rand(2, 1, 5, 5)
    assert augmented(x, "none") is x
    batch = {"x": x, "y": torch.zeros(2), "row": torch.zeros(2)}
    aside = data(store, 4, 2).on_after_batch_transfer(batch, 0)
    assert torch.equal(aside["x"], x), "outside training a batch stays as it is"


def test_auto_asks_whether_there_is_an_up() -> None:
    assert resolve_augment("auto", oriented=True) == "affine"
    assert resolve_augment("auto", oriented=False) == "dihedral"
    assert [resolve_augment(how, oriented=True) for how in ("none", "dihedral", "affine")] == [
        "none",
        "dihedral",
        "affine",
    ]


def test_class_numbers_by_place() -> None:
    numbers = class_numbers(["dust", "camp", "odd", "camp"], ["camp", "dust"])
    assert numbers.tolist() == [1, 0, -1, 0]
    assert numbers.dtype == np.int64


@pytest.mark.parametrize("world", [2, 3, 5])
def test_parts_of_several_processes_are_the_batches_of_one(store: PixelStore, world: int) -> None:
    def batches(rank: int | None) -> list[Batch]:
        together = data(store, 10, 4)
        if rank is not None:
            together.trainer = SimpleNamespace(world_size=world, global_rank=rank)  # type: ignore[assignment]
        loader = together.train_dataloader()
        assert len(loader) == 3
        sampler = loader.batch_sampler.sampler  # type: ignore[union-attr]
        sampler.set_epoch(2)  # where Lightning looks for it
        return list(loader)

    whole, parts = batches(None), [batches(rank) for rank in range(world)]
    for place, batch in enumerate(whole):
        of_batch = [part[place] for part in parts]
        assert [row for part in of_batch for row in rows_of(part)] == rows_of(batch)
        sizes = [len(part["x"]) for part in of_batch]
        assert max(sizes) - min(sizes) <= 1
        assert torch.equal(sum(part["mine"].int() for part in of_batch), torch.ones(len(batch["x"])))  # type: ignore[arg-type]
    assert [row for batch in whole for row in rows_of(batch)] == order(10, 3, 2)


@pytest.mark.parametrize("how", ["none", "dihedral", "affine"])
def test_a_part_is_augmented_as_in_the_whole_batch(how: Augment) -> None:
    x = torch.rand(7, 1, 6, 6)
    torch.manual_seed(4)
    whole = augmented(x, how)
    for start, stop in ((0, 3), (3, 3), (3, 7)):
        torch.manual_seed(4)
        place = torch.arange(7)
        part = augmented(x[start:stop], how, (place >= start) & (place < stop))
        torch.testing.assert_close(part, whole[start:stop])


def test_another_process_maps_the_same_files(store: PixelStore) -> None:
    again = copy.copy(store)
    np.testing.assert_array_equal(again[[0, 299]], store[[0, 299]])
    assert store.__reduce__()[1][0][0].name == "0.npy"

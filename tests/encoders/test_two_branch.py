import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import StandardScaler

import encoders.train_two_branch as module
from encoders.fit import FitSettings
from encoders.predict import Judge, scalars_of
from encoders.train_two_branch import TwoBranchSettings, measured, train_two_branch
from encoders.two_branch import SPREAD_OUT, Scaler, TwoBranch, TwoBranchTraining, load_two_branch
from particles.scalars import SCALARS
from particles.sets import DataSettings, ParticleSet, open_set
from particles.table import MEASURED_COLUMNS, empty_rows, write_parquet
from provenance.errors import UserError
from provenance.run import Run, RunSettings

HOW = FitSettings(epochs=4, batch_size=16, lr=1e-3, precision="32", augment="none")
SHORT = replace(HOW, epochs=1, batch_size=64)
PACKING = {"fit": "keep", "mean_correction": False, "in_um": False, "scalars_by": "instrument"}
N, S = 240, 16


def packed(folder: Path, images: np.ndarray, scalars: np.ndarray, labels: Sequence[str | None]) -> Path:
    """A packed set of given pixels (n, S, S), scalars (n, 34) and labels; without a label it is a core particle."""
    rows = empty_rows(len(images)).assign(**dict.fromkeys(MEASURED_COLUMNS, 1.0))
    rows["particle_id"] = rows["image"] = [f"p{i:04d}" for i in range(len(images))]
    rows["label"] = rows["truth"] = pd.array(list(labels), dtype="string")
    rows["role"] = ["core" if label is None else "labeled" for label in labels]
    rows[list(SCALARS)] = scalars
    write_parquet(rows, folder / "table.parquet")
    (folder / "pixels").mkdir()
    np.save(folder / "pixels" / "00000.npy", images)
    info = {"name": folder.name, "fingerprint": folder.name, "size": S, "oriented": False, "n": len(images),
            "in_um": False, "scalars_by": "instrument"}  # fmt: skip
    settings = {"fit": "keep", "mean_correction": False}
    (folder / "set.json").write_text(json.dumps(info | {"settings": settings, "shards": 1, "rejected": 0}))
    return folder


def opened(folder: Path, work: Path, **changed: object) -> ParticleSet:
    return open_set(replace(DataSettings(data=str(folder)), **changed), RunSettings(work_dir=work), lambda _: None)  # type: ignore[arg-type]


def noise(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Images and scalars that say nothing."""
    rng = np.random.default_rng(3)
    return rng.integers(90, 160, (n, S, S), dtype=np.uint8), rng.lognormal(2, 1, (n, len(SCALARS)))


@pytest.fixture
def told_by_scalars(tmp_path: Path) -> Path:
    images, scalars = noise()
    images[1::2] = images[::2]  # each image once in either class
    scalars[::2, list(SCALARS).index("Width")] *= 1000
    return packed(tmp_path / "scalars", images, scalars, ["thick", "thin"] * (N // 2))


@pytest.fixture
def told_by_image(tmp_path: Path) -> Path:
    images, scalars = noise()
    images[::2, 4:12, 4:12] = 20
    return packed(tmp_path / "image", images, scalars, ["dark", "pale"] * (N // 2))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm's running statistics follow at once: a training of seconds ends before they would come near."""

    class Quick(TwoBranchTraining):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            for layer in self.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.momentum = 0.5

    monkeypatch.setattr(module, "TwoBranchTraining", Quick)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear trunk, where the image is not what matters."""

    class Light(TwoBranchTraining):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.net.trunk = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(S * S, 512))

    monkeypatch.setattr(module, "TwoBranchTraining", Light)


def trained(folder: Path, work: Path, what: TwoBranchSettings, how: FitSettings = HOW) -> Run:
    return train_two_branch(opened(folder, work), what, what, how, RunSettings(work_dir=work))


@pytest.mark.usefixtures("light")
def test_what_only_the_scalars_tell_is_learned_from_them(told_by_scalars: Path, work: Path) -> None:
    how = replace(HOW, epochs=15, lr=3e-3)
    with_scalars = trained(told_by_scalars, work, TwoBranchSettings(), how).results
    without = trained(told_by_scalars, work, TwoBranchSettings(use_scalars=False), how).results
    assert with_scalars["accuracy"] > 0.9
    assert without["accuracy"] < 0.75  # chance, of 36
    assert with_scalars["n_test"] == without["n_test"] == 36
    assert with_scalars["n_test"] == without["n_test"] == 36


@pytest.mark.usefixtures("quick")
def test_what_only_the_image_tells_is_learned_from_it(told_by_image: Path, work: Path) -> None:
    run = trained(told_by_image, work, TwoBranchSettings(task="all"))
    assert run.results["accuracy"] > 0.9
    hyper = load_two_branch(run.path / "best.ckpt").hparams
    assert (hyper["task"], hyper["with_scalars"], hyper["packing"]) == ("all", True, PACKING)


def test_the_same_seed_gives_the_same_bytes(told_by_image: Path, work: Path) -> None:
    torch.manual_seed(1)
    first = trained(told_by_image, work, TwoBranchSettings(), SHORT)
    torch.manual_seed(2)
    second = trained(told_by_image, work, TwoBranchSettings(), SHORT)
    for name in ("metrics.json", "confusion.csv", "tested.parquet"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
    one, other = (torch.load(run.path / "best.ckpt", weights_only=True)["state_dict"] for run in (first, second))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_reloaded_network_gives_the_same_probabilities(told_by_image: Path, work: Path) -> None:
    run = trained(told_by_image, work, TwoBranchSettings(), SHORT)
    tested = pd.read_parquet(run.path / "tested.parquet").set_index("particle_id")
    particles = opened(told_by_image, work)
    rows = particles.table.set_index("particle_id").loc[tested.index]
    judge = Judge(load_two_branch(run.path / "best.ckpt"))
    p = judge(particles.pixels[rows["position"].to_numpy()], scalars_of(rows))[1]
    assert p.tobytes() == tested[["prob_dark", "prob_pale"]].to_numpy().tobytes()
    assert tested["predicted"].tolist() == [judge.classes[i] for i in p.argmax(axis=1)]
    confusion = pd.read_csv(run.path / "confusion.csv", index_col="truth")
    pd.testing.assert_frame_equal(
        confusion, pd.crosstab(tested["truth"], tested["predicted"]).reindex(columns=["dark", "pale"], fill_value=0),
        check_names=False, check_index_type=False, check_column_type=False,
    )  # fmt: skip


def test_a_set_without_scalars_is_classified_by_the_image_alone(tmp_path: Path, work: Path) -> None:
    images, scalars = noise(60)
    folder = packed(tmp_path / "bare", images, scalars * np.nan, ["a", "b"] * 30)
    model = load_two_branch(trained(folder, work, TwoBranchSettings(), SHORT).path / "best.ckpt")
    assert model.hparams["with_scalars"] is False
    assert model.net.scalars is None


def learned_scale(run: Run) -> Scaler:
    net = load_two_branch(run.path / "best.ckpt").net
    assert net.scalars is not None
    assert isinstance(net.scalars[0], Scaler)
    return net.scalars[0]


def test_the_scale_is_that_of_the_training_particles_alone(told_by_scalars: Path, work: Path) -> None:
    run = trained(told_by_scalars, work, TwoBranchSettings(), SHORT)
    particles = opened(told_by_scalars, work)
    drawn = module._drawn(particles, TwoBranchSettings(), 0)
    train = drawn.loc[drawn["split"] == "train", list(SCALARS)].to_numpy(dtype=float)
    assert len(train) == N - 36 - 36
    for place, name in enumerate(SCALARS):
        if name in SPREAD_OUT:
            train[:, place] = np.arcsinh(train[:, place])
    expected = StandardScaler().fit(train)
    scale = learned_scale(run)
    np.testing.assert_allclose(scale.mean.numpy(), expected.mean_, rtol=1e-5)
    np.testing.assert_allclose(scale.deviation.numpy(), expected.scale_, rtol=1e-4)


def test_classifying_other_particles_leaves_the_scale_alone(told_by_scalars: Path, work: Path) -> None:
    run = trained(told_by_scalars, work, TwoBranchSettings(), SHORT)
    model = load_two_branch(run.path / "best.ckpt")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, scalars = noise(50)
    Judge(model)(images, (scalars * 1e4).astype(np.float32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert any(name.endswith("deviation") for name in before), "the scale is in the checkpoint"


def fitted_scaler(seed: int = 0) -> tuple[Scaler, np.ndarray]:
    scaler, values = Scaler(), np.random.default_rng(seed).lognormal(3, 2, (500, len(SCALARS)))
    scaler.fit(values)
    return scaler, values


def test_what_is_missing_or_infinite_is_the_mean() -> None:
    scaler, values = fitted_scaler()
    broken = torch.tensor(values[:4], dtype=torch.float32)
    whole = scaler(broken)
    broken[0, 3], broken[1, 5], broken[2, 7] = torch.nan, torch.inf, -torch.inf
    found = scaler(broken)
    assert found[0, 3] == found[1, 5] == found[2, 7] == 0
    same = torch.ones_like(found, dtype=torch.bool)
    same[0, 3] = same[1, 5] = same[2, 7] = False
    assert torch.equal(found[same], whole[same])


def test_missing_scalars_are_passed_over_when_the_scale_is_taken() -> None:
    values = np.random.default_rng(1).normal(5, 2, (300, len(SCALARS)))
    gaps = values.copy()
    gaps[:100, 0], gaps[7, 1], gaps[:, 2], values[:, 4] = np.nan, np.inf, np.nan, 0.5
    gaps[:, 4] = 0.5
    scaler = Scaler()
    scaler.fit(gaps)
    flat = np.arcsinh(values[:, :2])
    assert scaler.mean[0] == pytest.approx(flat[100:, 0].mean(), rel=1e-5)
    assert scaler.deviation[1] == pytest.approx(np.delete(flat[:, 1], 7).std(), rel=1e-5)
    assert (scaler.mean[2], scaler.deviation[2], scaler.deviation[4]) == (0, 1, 1)


def test_a_few_huge_values_do_not_hide_the_differences_of_all_others() -> None:
    place = list(SCALARS).index("Volume (ABD)")
    values = np.full((1000, len(SCALARS)), 1.0)
    values[:, place] = np.random.default_rng(2).lognormal(3, 1, 1000)
    plain = values[:, place].copy()
    values[:3, place] = 1e6
    scaler = Scaler()
    scaler.fit(values)
    found = scaler(torch.tensor(values, dtype=torch.float32)).numpy()[:, place]
    quartiles = np.percentile(found[3:], [25, 75])
    assert np.diff(quartiles) > 0.5
    spoiled = StandardScaler().fit_transform(values[:, [place]])[3:, 0]
    assert np.diff(np.percentile(spoiled, [25, 75])) < 0.01, "without asinh they would be one number"
    order = np.argsort(plain[3:])
    assert (np.diff(found[3:][order]) >= 0).all()


def test_nothing_is_farther_off_than_ten_deviations() -> None:
    scaler, _ = fitted_scaler()
    extreme = torch.full((2, len(SCALARS)), 1e30)
    extreme[1] *= -1
    assert scaler(extreme).abs().max() == 10


def test_asinh_is_torchs_and_numpys_alike() -> None:
    values = np.array([-1e6, -3.0, 0.0, 1e-3, 1e9], dtype=np.float32)
    rows = np.repeat(values[:, None], len(SCALARS), axis=1)
    found = Scaler()(torch.from_numpy(rows))[:, list(SCALARS).index("Length")].numpy()
    np.testing.assert_allclose(found, np.clip(np.arcsinh(values.astype(float)), -10, 10), rtol=1e-5)


def small(with_scalars: bool = True) -> TwoBranchTraining:
    torch.manual_seed(0)
    return TwoBranchTraining("all", ["a", "b", "c"], [1.0, 1.0, 1.0], 1e-4, S, with_scalars, PACKING)


@pytest.mark.parametrize("with_scalars", [True, False])
def test_gradients_reach_every_parameter(with_scalars: bool) -> None:
    model = small(with_scalars)
    batch = {"x": torch.rand(8, 1, S, S), "y": torch.arange(8) % 3, "measures": torch.rand(8, len(SCALARS))}
    logits = model.net(batch["x"], batch["measures"])[1]
    torch.nn.functional.cross_entropy(logits, batch["y"]).backward()
    without = [name for name, p in model.net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_the_network_has_the_published_layers() -> None:
    shapes = [tuple(p.shape) for n, p in TwoBranch(7).named_parameters() if "trunk" not in n and "weight" in n]
    assert shapes == [(64, 512), (128, 34), (64, 128), (32, 64), (40, 96), (7, 40)]
    bare = [tuple(p.shape) for n, p in TwoBranch(3, False).named_parameters() if "trunk" not in n and "weight" in n]
    assert bare == [(64, 512), (40, 64), (3, 40)]


def test_a_particle_without_scalars_gets_a_prediction() -> None:
    images, _ = noise(5)
    z, p = Judge(small())(images, np.full((5, len(SCALARS)), np.nan, np.float32))
    assert np.isfinite(z).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert np.ptp(p[:, 0]) > 0, "the image still counts"


@pytest.mark.parametrize("batch", [1, 7])
def test_a_row_does_not_depend_on_its_company(batch: int) -> None:
    judge = Judge(small())
    images, scalars = noise(21)
    values = scalars.astype(np.float32)
    z, p = judge(images, values)
    steps = [slice(i, i + batch) for i in range(0, 21, batch)]
    parts = [judge(images[step], values[step]) for step in steps]
    np.testing.assert_allclose(np.concatenate([part[0] for part in parts]), z, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([part[1] for part in parts]), p, atol=1e-5)


def test_a_set_of_labels_alone_is_drawn_from_whole(told_by_image: Path, work: Path) -> None:
    particles = opened(told_by_image, work)
    assert (particles.table["role"] == "core").any(), "elsewhere its test split plays the core"
    drawn = module._drawn(particles, TwoBranchSettings(n_val=10, n_test=12), 0)
    assert len(drawn) == N
    assert drawn.groupby(["class", "split"]).size().to_dict() == {
        (name, split): n for name in ("dark", "pale") for split, n in (("test", 12), ("train", 98), ("val", 10))
    }
    assert (drawn["class"] == drawn["truth"]).all()


def test_hidden_and_held_out_labels_are_not_learned(tmp_path: Path, work: Path) -> None:
    images, scalars = noise(120)
    folder = packed(tmp_path / "three", images, scalars, ["a", "b", "c"] * 30 + [None] * 30)
    drawn = module._drawn(opened(folder, work, held_out=("b",)), TwoBranchSettings(), 0)
    assert set(drawn["class"]) == {"a", "c"}
    assert len(drawn) == 60
    with pytest.raises(UserError, match="it has no labels"):
        module._drawn(opened(folder, work, use_labels=False), TwoBranchSettings(), 0)


def marks(path: Path, ids: Sequence[str], label: str) -> Path:
    path.write_text("particle_id,star,label\n" + "".join(f"{name},1,{label}\n" for name in ids))
    return path


def test_what_a_person_marked_is_learned_from_and_judges_nothing(tmp_path: Path, work: Path) -> None:
    folder = packed(tmp_path / "three", *noise(120), ["a", "b", None] * 40)
    picked = [f"p{i:04d}" for i in range(2, 120, 3)]
    particles = opened(folder, work, extra_labels=marks(tmp_path / "m.csv", picked, "new"))
    drawn = module._drawn(particles, TwoBranchSettings(), 0)
    assert drawn.groupby(["class", "split"]).size().to_dict() == {
        ("a", "test"): 6, ("a", "train"): 28, ("a", "val"): 6, ("b", "test"): 6, ("b", "train"): 28, ("b", "val"): 6,
        ("new", "train"): 40,
    }  # fmt: skip
    run = train_two_branch(particles, SHORT, TwoBranchSettings(), SHORT, RunSettings(work_dir=work))
    assert run.results["classes"]["new"]["support"] == 0
    assert "prob_new" in pd.read_parquet(run.path / "tested.parquet"), "it is learned"


def test_marks_on_another_core_are_learned_from(tmp_path: Path, work: Path) -> None:
    folder = packed(tmp_path / "known", *noise(60), ["a", "b"] * 30)
    core = packed(tmp_path / "core", *noise(30), ["a", "odd"] * 15)
    rows = pd.read_parquet(core / "table.parquet")
    rows["particle_id"] = [f"c{i}" for i in range(30)]
    write_parquet(rows, core / "table.parquet")
    path = marks(tmp_path / "m.csv", [f"c{i}" for i in range(3, 12)], "new")
    drawn = module._drawn(opened(folder, work, core=str(core), extra_labels=path), TwoBranchSettings(), 0)
    assert drawn["class"].value_counts().to_dict() == {"a": 30, "b": 30, "new": 9}
    assert drawn.loc[drawn["class"] == "new", "particle_id"].tolist() == [f"c{i}" for i in range(3, 12)]
    assert drawn.loc[drawn["class"] == "new", "position"].tolist() == list(range(63, 72)), "those of the core"
    assert set(drawn.loc[drawn["class"] == "new", "split"]) == {"train"}


def test_where_marks_are_all_there_is_they_judge(tmp_path: Path, work: Path) -> None:
    folder = packed(tmp_path / "bare", *noise(60), ["a"] * 20 + [None] * 40)
    path = marks(tmp_path / "m.csv", [f"p{i:04d}" for i in range(20, 60)], "new")
    drawn = module._drawn(opened(folder, work, extra_labels=path), TwoBranchSettings(), 0)
    assert drawn.loc[drawn["class"] == "new", "split"].value_counts().to_dict() == {"train": 28, "val": 6, "test": 6}


def test_precision_recall_and_merged_oaks_by_hand() -> None:
    truth = np.array(["dust", "dust", "qrob", "qrob", "qsub", "qsub"], dtype=object)
    predicted = np.array(["dust", "qrob", "qsub", "qrob", "qrob", "dust"], dtype=object)
    found = measured(truth, predicted, ["camp", "dust", "qrob", "qsub"])
    assert found["accuracy"] == pytest.approx(2 / 6)
    assert found["merged_oak_accuracy"] == pytest.approx(4 / 6)
    assert found["classes"]["dust"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert found["classes"]["qrob"] == {"precision": pytest.approx(1 / 3), "recall": 0.5, "f1": pytest.approx(0.4),
                                        "support": 2}  # fmt: skip
    assert found["classes"]["camp"]["recall"] is None
    assert found["classes"]["camp"]["support"] == 0
    assert "merged_oak_accuracy" not in measured(truth, predicted, ["camp", "dust", "qsub"])


def test_nothing_to_validate_or_test_with_is_refused() -> None:
    with pytest.raises(UserError, match=r"--n-test 0: give at least 1"):
        TwoBranchSettings(n_test=0)

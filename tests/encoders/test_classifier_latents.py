import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

import encoders.encode
from encoders.classifier import MEASURE_WEIGHT, ClassifierTraining
from encoders.encode import encode_classifier, inference
from encoders.pretrain import balanced_weights
from particles.loader import as_input
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from provenance.run import RunSettings


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> ParticleSet:
    data = DataSettings(n_per_class=6, n_core=20, n_per_kind=1, pack=PackSettings(size=16, scalars=False))
    return open_set(data, RunSettings(work_dir=tmp_path_factory.mktemp("work")), say=lambda _: None)


@pytest.fixture(scope="module")
def model(particles: ParticleSet) -> ClassifierTraining:
    torch.manual_seed(0)
    built = ClassifierTraining(particles.classes, [1.0] * len(particles.classes), lr=1e-3, size=16)
    built.net.trunk(as_input(particles.pixels[range(len(particles.pixels))]))  # running statistics of this set
    torch.nn.init.normal_(built.net.head.weight, std=0.5)  # so that classes differ clearly
    return built


def test_weights_are_those_of_scikit_learn() -> None:
    targets = np.random.default_rng(0).choice(4, size=200, p=[0.7, 0.2, 0.08, 0.02])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=targets)
    np.testing.assert_allclose(balanced_weights(targets, 4), expected)
    # every class weighs the same in sum, and a particle weighs 1 on average
    np.testing.assert_allclose(np.bincount(targets, weights=balanced_weights(targets, 4)[targets]), 50.0)


def test_a_class_without_training_particles_gets_a_finite_weight() -> None:
    weights = balanced_weights(np.array([0, 0, 2]), 3)
    np.testing.assert_allclose(weights[[0, 2]], [0.5, 1.0])
    assert np.isfinite(weights[1])


def test_rare_classes_count_as_much_as_common_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine particles of class 0 and one of class 1: the loss is the mean of the two classes' mean losses."""
    targets = np.array([0] * 9 + [1])
    training = ClassifierTraining(["a", "b"], balanced_weights(targets, 2).tolist(), lr=1e-3, size=16)
    logged: dict[str, float] = {}
    monkeypatch.setattr(training, "log_dict", lambda values, **_: logged.update(values))
    logits = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(training.net.trunk, "forward", lambda x: logits)
    monkeypatch.setattr(training.net.head, "forward", lambda features: features)
    # two core particles without a label, which must not count
    batch = {"x": torch.zeros(12, 1, 16, 16), "y": torch.from_numpy(np.append(targets, [-1, -1]))}
    loss = training.training_step(batch, 0)
    nll = -logits.log_softmax(1)[torch.arange(10), batch["y"][:10]]
    assert float(loss) == pytest.approx(float((nll[:9].mean() + nll[9]) / 2), rel=1e-5)
    assert float(logged["train_loss"]) == pytest.approx(float(loss))
    right = (logits[:10].argmax(1) == batch["y"][:10]).float().mean()
    assert float(logged["train_accuracy"]) == pytest.approx(float(right))


def test_z_is_the_penultimate_layer_that_the_head_turns_into_the_probabilities(
    model: ClassifierTraining, particles: ParticleSet
) -> None:
    latents = encode_classifier(model, particles)
    p = latents.index[[f"prob_{name}" for name in particles.classes]].to_numpy()
    with torch.no_grad():
        again = model.net.head(torch.from_numpy(latents.z)).softmax(1).numpy()
    np.testing.assert_allclose(p, again, atol=1e-5)
    np.testing.assert_allclose(p.sum(1), 1.0, atol=1e-5)
    assert latents.index["predicted"].tolist() == [particles.classes[i] for i in p.argmax(1)]
    np.testing.assert_array_equal(latents.index["confidence"], p.max(1))
    with torch.no_grad():
        logits = model.net.head(torch.from_numpy(latents.z)).numpy()
    np.testing.assert_allclose(latents.index["neg_max_logit"], -logits.max(1), atol=1e-5)
    assert latents.index["predicted"].nunique() > 1


def test_rows_are_those_of_the_table_with_their_own_pixels(model: ClassifierTraining, particles: ParticleSet) -> None:
    latents = encode_classifier(model, particles)
    columns = ["particle_id", "label", "truth", "role", "split", "is_outlier"]
    assert latents.index[columns].equals(particles.table[columns])
    place = 13
    row = particles.table.iloc[place]
    with inference(model), torch.inference_mode():
        alone = model.net.trunk(as_input(particles.pixels[[int(row["position"])]]))[0].numpy()
    np.testing.assert_allclose(latents.z[place], alone, atol=1e-4)
    assert np.abs(latents.z[place] - latents.z[place + 1]).max() > 1e-2


def test_a_subset_in_another_order_gets_the_same_latents(model: ClassifierTraining, particles: ParticleSet) -> None:
    whole = encode_classifier(model, particles)
    order = np.random.default_rng(1).permutation(len(particles.table))[:17]
    some = ParticleSet(
        particles.name, particles.table.iloc[order].reset_index(drop=True), particles.pixels,
        particles.fingerprint, particles.folder, particles.oriented,
    )  # fmt: skip
    latents = encode_classifier(model, some)
    assert latents.index["particle_id"].tolist() == particles.table["particle_id"].iloc[order].tolist()
    np.testing.assert_allclose(latents.z, whole.z[order], atol=1e-4)


def test_latents_do_not_depend_on_the_batches(
    model: ClassifierTraining, particles: ParticleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode_classifier(model, particles)
    monkeypatch.setattr(encoders.encode, "BATCH", 7)
    np.testing.assert_allclose(encode_classifier(model, particles).z, whole.z, atol=1e-4)


def test_encoding_is_repeatable_and_leaves_the_model_as_it_was(
    model: ClassifierTraining, particles: ParticleSet
) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = encode_classifier(model, particles), encode_classifier(model, particles)
    assert first.z.tobytes() == second.z.tobytes()
    assert model.training
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def of_three_measures() -> ClassifierTraining:
    torch.manual_seed(0)
    training = ClassifierTraining(["a", "b"], [1.0, 1.0], lr=1e-3, size=16, n_measures=3)
    training.log = training.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    return training.eval()


def test_measures_are_learned_from_unlabeled_images_too() -> None:
    """The loss of a batch without any label is the weighted squared error of the measures alone."""
    training = of_three_measures()
    x, wanted = torch.rand(4, 1, 16, 16), torch.randn(4, 3)
    loss = training.training_step({"x": x, "y": torch.full((4,), -1), "measures": wanted}, 0)
    read = training.net.measure(training.net.trunk(x))
    assert float(loss.detach()) == pytest.approx(
        MEASURE_WEIGHT * float(((read - wanted) ** 2).mean().detach()), rel=1e-5
    )
    assert MEASURE_WEIGHT == 3, "which was chosen on seeds that no result is reported on"
    loss.backward()
    assert training.net.trunk.net.conv1.weight.grad.abs().max() > 0
    assert training.net.head.weight.grad is None or not training.net.head.weight.grad.any()


def test_a_measure_that_is_missing_teaches_nothing() -> None:
    training = of_three_measures()
    x, wanted = torch.rand(4, 1, 16, 16), torch.randn(4, 3)
    wanted[:, 2] = wanted[0, 1] = torch.nan
    loss = training.training_step({"x": x, "y": torch.full((4,), -1), "measures": wanted}, 0)
    known = (training.net.measure(training.net.trunk(x)) - wanted)[wanted.isfinite()]
    assert float(loss.detach()) == pytest.approx(MEASURE_WEIGHT * float((known**2).sum().detach()) / 12, rel=1e-5)
    loss.backward()
    gradients = training.net.measure.weight.grad
    assert torch.isfinite(training.net.trunk.net.conv1.weight.grad).all()
    assert gradients[:2].any(dim=1).all()
    assert not gradients[2].any()


def test_a_class_turned_is_another_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is the cross entropy over classes times turns, of images turned as the targets say."""
    torch.manual_seed(0)
    training = ClassifierTraining(["a", "b", "c"], [1.0, 2.0, 0.5], lr=1e-3, size=16, turns=True)
    logged: dict[str, float] = {}
    monkeypatch.setattr(training, "log_dict", lambda values, **_: logged.update(values))
    seen: list[torch.Tensor] = []
    trunk = training.net.trunk.eval()  # batch norm by its running statistics: each image by itself

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return type(trunk).forward(trunk, x)

    monkeypatch.setattr(trunk, "forward", watched)
    x, y = torch.rand(40, 1, 16, 16), torch.randint(3, (40,))
    y[:5] = -1  # core particles have no class, however they lie
    torch.manual_seed(1)
    loss = training.training_step({"x": x, "y": y, "measures": torch.empty(40, 0)}, 0)
    pairs = zip(seen[0], x, strict=True)
    quarters = [next(k for k in range(4) if torch.equal(one, of.rot90(k, (-2, -1)))) for one, of in pairs]
    assert sorted(set(quarters)) == [0, 1, 2, 3]
    features = trunk(seen[0])[5:]
    logits = torch.cat([training.net.head(features), training.net.turned(features)], dim=1)
    wanted = y[5:] + 3 * torch.tensor(quarters[5:])
    nll, weight = -logits.log_softmax(1)[torch.arange(35), wanted], torch.tensor([1.0, 2.0, 0.5])[y[5:]]
    assert float(loss.detach()) == pytest.approx(float(((nll * weight).sum() / weight.sum()).detach()), rel=1e-5)
    straight = torch.tensor(quarters[5:]) == 0
    hits = training.net.head(features).argmax(1)[straight] == y[5:][straight]
    assert 0 < len(hits) < 20
    assert float(logged["train_accuracy"]) == pytest.approx(float(hits.float().mean())), "of upright images alone"
    loss.backward()
    for layer in (training.net.head, training.net.turned, trunk.net.conv1):
        assert layer.weight.grad.abs().max() > 0
    training.validation_step({"x": x, "y": y}, 0)
    upright = training.net.head(trunk(x)[5:]).argmax(1) == y[5:]
    assert float(logged["val_accuracy"]) == pytest.approx(float(upright.float().mean())), "judged upright"

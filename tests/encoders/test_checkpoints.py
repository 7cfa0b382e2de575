import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from autoencoders.models import Kind
from autoencoders.training import AutoencoderTraining, load_autoencoder
from encoders.classifier import ClassifierTraining, load_classifier
from encoders.fit import read_checkpoint
from encoders.resnet import ResNet18Trunk
from encoders.warm_start import warm_start
from provenance.errors import UserError

GARBAGE = {
    "empty": b"",
    "text": b"hello world\n",
    "zeros": bytes(300),
    "picture": b"\x89PNG\r\n\x1a\n",
    "zip header alone": b"PK\x03\x04",
    "pickle without its operands": b"\x80\x02\x86S\xb6\x80Qt\xb6v",
    "pickle with broken text": b"\x80\x02U\xech\x0c\n\xc9\xaee\xf2EM`@w>\xa4",
    "cut number": b"JX\xb7\x91\xdfj\xf1\xd8",
    "plain pickle": pickle.dumps({"hyper_parameters": {"kind": "vae"}}),
}


def save(path: Path, model: AutoencoderTraining | ClassifierTraining, **changed: Any) -> Path:
    """A checkpoint as the trainer writes it, with some of its hyperparameters changed."""
    hyper = dict(model.hparams) | changed
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": hyper}, path)
    return path


def classifier(size: int = 16) -> ClassifierTraining:
    torch.manual_seed(1)
    return ClassifierTraining(["dust", "grim", "qrob"], [1.0, 2.0, 0.5], lr=1e-3, size=size)


def autoencoder(kind: Kind = "vae", latent_dim: int = 4) -> AutoencoderTraining:
    torch.manual_seed(2)
    return AutoencoderTraining(kind, latent_dim, 16, "gaussian", 2, 1e-3, 1.0)


def test_a_reloaded_classifier_scores_the_same(tmp_path: Path) -> None:
    model = classifier().eval()
    loaded = load_classifier(save(tmp_path / "best.ckpt", model))
    x = torch.rand(3, 1, 16, 16)
    assert loaded.classes == ["dust", "grim", "qrob"]
    assert loaded.weights.tolist() == [1.0, 2.0, 0.5]
    assert not loaded.training
    assert torch.equal(loaded.net(x), model.net(x))


@pytest.mark.parametrize("kind", ["ae", "vae", "planar-vae"])
def test_a_reloaded_autoencoder_encodes_the_same(tmp_path: Path, kind: Kind) -> None:
    model = autoencoder(kind).eval()
    loaded = load_autoencoder(save(tmp_path / "best.ckpt", model), kind)
    x = torch.rand(3, 1, 16, 16)
    assert not loaded.training
    assert torch.equal(loaded.net.encode(x), model.net.encode(x))
    assert torch.equal(loaded.net.mean_image(loaded.net.encode(x)), model.net.mean_image(model.net.encode(x)))


def test_hyperparameters_are_plain_values() -> None:
    for model in (classifier(), autoencoder()):
        values = [v for value in model.hparams.values() for v in (value if isinstance(value, list) else [value])]
        assert {type(value) for value in values} <= {str, int, float, bool}


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "best.ckpt", classifier())
    with pytest.raises(UserError, match=r"kind 'classifier', not 'vae'.*train_vae\.py"):
        load_autoencoder(path, "vae")
    path = save(tmp_path / "vae.ckpt", autoencoder("vae"))
    with pytest.raises(UserError, match=r"kind 'vae', not 'planar-vae'.*--flow planar"):
        load_autoencoder(path, "planar-vae")
    with pytest.raises(UserError, match=r"kind 'vae', not 'classifier'.*pretrain_classifier\.py"):
        load_classifier(path)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "best.ckpt", autoencoder(latent_dim=4), latent_dim=5)
    with pytest.raises(UserError, match="another architecture"):
        load_autoencoder(path, "vae")
    path = save(tmp_path / "classifier.ckpt", classifier(), classes=["dust"], class_weights=[1.0])
    with pytest.raises(UserError, match="another architecture"):
        load_classifier(path)


def test_hyperparameters_of_another_version_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "best.ckpt", autoencoder(), depth=3)
    with pytest.raises(UserError, match=r"best\.ckpt"):
        load_autoencoder(path, "vae")


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"garbage\.ckpt: not a checkpoint of this project .*train_vae\.py"):
        read_checkpoint(path, "vae")


@pytest.mark.parametrize("value", [torch.zeros(3), [1], "text", None, {"hyper_parameters": None}])
def test_other_things_that_torch_can_load_are_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "other.ckpt"
    torch.save(value, path)
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        read_checkpoint(path, "vae")


def test_a_cut_file_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.ckpt", autoencoder()).read_bytes()
    for n in (1, 1000, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.ckpt").write_bytes(whole[:n])
        with pytest.raises(UserError, match=r"cut\.ckpt"):
            read_checkpoint(tmp_path / "cut.ckpt", "vae")
    for absent in (tmp_path / "absent.ckpt", tmp_path):
        with pytest.raises(UserError, match="not a checkpoint"):
            read_checkpoint(absent, "vae")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "evil.ckpt"
    content = {"hyper_parameters": {"kind": "vae"}, "state_dict": Touch(mark)}
    pickle.loads(pickle.dumps(content))
    assert mark.exists()  # it would work
    mark.unlink()
    torch.save(content, path)
    with pytest.raises(UserError, match=r"evil\.ckpt"):
        read_checkpoint(path, "vae")
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"evil\.ckpt"):
        read_checkpoint(path, "vae")
    assert not mark.exists()


def test_warm_start_takes_the_trunk_bit_for_bit(tmp_path: Path) -> None:
    model = classifier()
    model.net.trunk(torch.rand(4, 1, 16, 16))  # so that the running statistics are not those of a fresh trunk
    path = save(tmp_path / "best.ckpt", model)
    trunk = ResNet18Trunk()
    assert not torch.equal(trunk.net.conv1.weight, model.net.trunk.net.conv1.weight)
    report = warm_start(trunk, path, 16)
    given, taken = model.net.trunk.state_dict(), trunk.state_dict()
    assert list(given) == list(taken)
    assert all(torch.equal(given[name], taken[name]) for name in given)
    assert report.tensors == len(given)
    assert report.parameters == sum(tensor.numel() for tensor in given.values())
    # what anyone counts by hand: 11,689,512 numbers of ResNet18, less its head, with one input channel
    learned = sum(parameter.numel() for parameter in trunk.parameters())
    assert learned == 11_689_512 - (512 * 1000 + 1000) - 2 * 64 * 49
    assert 0 < report.parameters - learned < 10_000  # batch norm's running statistics
    assert f"{report.tensors} tensors" in str(report)


def test_warm_start_leaves_the_head(tmp_path: Path) -> None:
    path = save(tmp_path / "best.ckpt", classifier())
    net = autoencoder().net
    before = {name: tensor.clone() for name, tensor in net.state_dict().items() if not name.startswith("trunk.")}
    report = warm_start(net.trunk, path, 16)
    assert report.left == ("head.weight", "head.bias")
    assert "head.weight" in str(report)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


def test_warm_start_refuses_other_sizes_and_other_models(tmp_path: Path) -> None:
    trunk = ResNet18Trunk()
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    path = save(tmp_path / "best.ckpt", classifier(size=16))
    with pytest.raises(UserError, match=r"16 px.*32 px.*--from-scratch"):
        warm_start(trunk, path, 32)
    with pytest.raises(UserError, match="kind 'ae', not 'classifier'"):
        warm_start(trunk, save(tmp_path / "ae.ckpt", autoencoder("ae")), 16)
    assert all(torch.equal(trunk.state_dict()[name], tensor) for name, tensor in before.items())

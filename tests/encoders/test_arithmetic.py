import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoencoders.training import AutoencoderTraining
from encoders.arithmetic import best_device, keep_memory, resolve_precision
from encoders.encode import inference
from encoders.fit import one_cycle
from encoders.resnet import ResNet18Trunk

BIG = 256 * 2**20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux")
def test_what_a_step_has_freed_is_kept_for_the_next() -> None:
    if not keep_memory():
        pytest.skip("not glibc")
    before = resident()
    block = torch.ones(BIG // 4)
    held = resident() - before
    del block
    assert resident() - before > held - BIG // 8
    again = torch.ones(BIG // 8)
    assert resident() - before < held + BIG // 8, "taken again, not taken anew"
    del again


def test_precision_is_what_was_asked_for_and_auto_asks_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("32") == "32-true"
    assert resolve_precision("bf16") == "bf16-mixed"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for avx, amx, expected in ((False, False, "32-true"), (True, False, "bf16-mixed"), (False, True, "bf16-mixed")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=avx: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=amx: has)
        assert resolve_precision("auto") == expected
    assert best_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_precision("auto") == "bf16-mixed"
    assert best_device() == torch.device("cuda")


def test_bf16_features_point_where_float32_ones_do() -> None:
    torch.manual_seed(0)
    trunk = ResNet18Trunk()
    x = torch.rand(64, 1, 32, 32)
    with torch.no_grad():
        trunk(x)  # running statistics
    found = {}
    for precision in ("32", "bf16"):
        with inference(trunk, precision), torch.inference_mode():
            found[precision] = trunk(x).float()
    cosine = torch.nn.functional.cosine_similarity(found["32"], found["bf16"])
    assert float(cosine.min()) > 0.999
    assert not torch.equal(found["32"], found["bf16"]), "bf16 was used"
    assert trunk.training, "left as it was"


def autoencoder(likelihood: str) -> AutoencoderTraining:
    model = AutoencoderTraining("vae", 4, 16, likelihood, 0, lr=1e-3, kl_warmup=1.0)
    model.trainer = SimpleNamespace(estimated_stepping_batches=50, gradient_clip_val=None)
    return model


def test_sigma_learns_ten_times_as_fast_and_everything_is_learned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoencoderTraining, "trainer", None, raising=False)
    model = autoencoder("gaussian")
    optimizer = model.configure_optimizers()["optimizer"]
    learned = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(learned) == sorted(id(p) for p in model.parameters())
    slow, quick = optimizer.param_groups
    assert [id(p) for p in quick["params"]] == [id(model.net.log_sigma)]
    assert quick["lr"] == pytest.approx(10 * slow["lr"])
    assert (slow["weight_decay"], quick["weight_decay"]) == (1e-4, 0.0)
    before = {id(p): p.detach().clone() for p in model.parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    # Adam's first step is the learning rate, whatever the gradient
    assert float((before[id(model.net.log_sigma)] - model.net.log_sigma).detach()) == pytest.approx(
        quick["lr"], rel=1e-3
    )
    bias = model.net.mu_head.bias
    np.testing.assert_allclose((before[id(bias)] - bias).detach().numpy(), slow["lr"], rtol=0.02)


def test_without_sigma_there_is_one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoencoderTraining, "trainer", None, raising=False)
    assert len(autoencoder("bernoulli").configure_optimizers()["optimizer"].param_groups) == 1


def test_the_fused_step_is_adamw_s() -> None:
    torch.manual_seed(0)
    nets = [torch.nn.Linear(5, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    module = SimpleNamespace(
        lr=1e-2,
        parameters=nets[0].parameters,
        trainer=SimpleNamespace(estimated_stepping_batches=9, gradient_clip_val=None),
    )
    cycle = one_cycle(module)
    plain = torch.optim.AdamW(nets[1].parameters(), lr=1e-2, weight_decay=1e-4, foreach=False)
    schedule = torch.optim.lr_scheduler.OneCycleLR(plain, 1e-2, total_steps=9)
    x = torch.randn(8, 5)
    for _ in range(8):
        for net, optimizer, steps in (
            (nets[0], cycle["optimizer"], cycle["lr_scheduler"]["scheduler"]),
            (nets[1], plain, schedule),
        ):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
            steps.step()
    torch.testing.assert_close(nets[0].weight, nets[1].weight, rtol=1e-5, atol=1e-6)

"""The gradient of weights by matrix products, against the library's."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from encoders import small_maps
from encoders.resnet import ResNet18Trunk
from encoders.small_maps import SmallMapConv2d, weight_gradient, with_small_maps

SHAPES = [  # kernel, stride, padding, height, width
    (3, 1, 1, 1, 1), (3, 1, 1, 2, 2), (3, 2, 1, 2, 2), (1, 2, 0, 2, 2), (3, 2, 1, 3, 3), (3, 2, 1, 4, 2),
    (5, 2, 2, 3, 4), (7, 2, 3, 2, 2), (3, 1, 0, 4, 4), (3, 3, 1, 5, 5), (1, 1, 2, 1, 1),
]  # fmt: skip


def conv(**changes) -> nn.Conv2d:
    return nn.Conv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "bias": False, **changes})


@pytest.mark.parametrize("shape", SHAPES)
def test_weight_gradient_is_the_librarys(shape):
    kernel, stride, padding, height, width = shape
    x, weight = torch.randn(3, 4, height, width).double(), torch.randn(5, 4, kernel, kernel).double()
    gradient = torch.randn_like(torch.conv2d(x, weight, None, stride, padding))
    expected = torch.nn.grad.conv2d_weight(x, weight.shape, gradient, stride, padding)
    found = weight_gradient(x, gradient, kernel, stride, padding)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_layer_does_what_the_library_does(side, autocast):
    plain = conv(stride=2)
    small, x = SmallMapConv2d(plain), torch.randn(8, 4, side, side)
    found = {}
    for name, layer in (("plain", plain), ("small", small)):
        inputs = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer(inputs)
        (of_x, of_weight) = torch.autograd.grad(y.float().square().sum(), [inputs, plain.weight])
        found[name] = y, of_x, of_weight
    assert found["small"][0].dtype == found["plain"][0].dtype
    assert torch.equal(found["small"][0], found["plain"][0])
    assert torch.equal(found["small"][1], found["plain"][1])
    torch.testing.assert_close(found["small"][2], found["plain"][2], rtol=2e-2 if autocast else 1e-5, atol=1e-5)


def test_only_small_maps_are_ours(monkeypatch):
    seen = []
    monkeypatch.setattr(
        small_maps, "weight_gradient", lambda x, *_: seen.append(x.shape[-1]) or torch.zeros(6, 4, 3, 3)
    )
    layer = SmallMapConv2d(conv())
    for side in (2, 3):
        layer(torch.randn(1, 4, side, side)).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        for side in (4, 5):
            layer(torch.randn(1, 4, side, side)).sum().backward()
    layer.double()(torch.randn(1, 4, 1, 1).double()).sum().backward()
    assert seen == [2, 4]


def test_trunk_has_torchvisions_names_and_first_weights():
    torch.manual_seed(3)
    plain = resnet18(weights=None)
    torch.manual_seed(3)
    replaced = with_small_maps(resnet18(weights=None))
    assert plain.state_dict().keys() == replaced.state_dict().keys()
    assert all(torch.equal(value, replaced.state_dict()[name]) for name, value in plain.state_dict().items())
    assert sum(isinstance(layer, SmallMapConv2d) for layer in replaced.modules()) == 20


def test_trunk_learns_the_same(monkeypatch):
    trunk, x = ResNet18Trunk().train(), torch.rand(16, 1, 28, 28)
    found = []
    for most in (small_maps.MOST_PIXELS, {}):
        monkeypatch.setattr(small_maps, "MOST_PIXELS", most)
        trunk.zero_grad()
        trunk(x).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in trunk.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize(
    "changes",
    [{"bias": True}, {"groups": 2}, {"dilation": 2}, {"padding": "same"}, {"kernel_size": (3, 1), "padding": (1, 0)},
     {"padding": "valid"}, {"stride": (1, 2)}, {"padding_mode": "reflect"}, {"padding_mode": "circular"}],
)  # fmt: skip
def test_what_is_not_plain_is_left_alone(changes):
    layer = conv(**changes)
    net = nn.Sequential(layer)
    assert with_small_maps(net)[0] is layer

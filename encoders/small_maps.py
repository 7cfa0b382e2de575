"""Convolutions whose weights learn quickly where the maps are small.

On a CPU the library's gradient of a convolution's weights runs at a tenth of its usual speed on maps of a few pixels,
which is where a ResNet has most of its weights. Here it is one matrix product for each tap of the kernel, over the
pixels that this tap meets, so that padding is not multiplied either; at 28 px that saves a third of the trunk's step.
Forward passes, gradients of the maps, larger maps and GPUs stay the library's.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

MOST_PIXELS = {torch.bfloat16: 16, torch.float32: 4}
"""Of the output, up to which the products are faster (benchmarks/RESULTS.md, "Arithmetic"); other types never."""


def with_small_maps(net: nn.Module) -> nn.Module:
    """The same network with the same parameters, its square convolutions without bias replaced by `SmallMapConv2d`."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and SmallMapConv2d.stands_for(child):
                setattr(parent, name, SmallMapConv2d(child))
    return net


class SmallMapConv2d(nn.Conv2d):
    """A convolution with the weights of another; the gradient of its weights is ours where the output is small."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """Take over a convolution.

        Args:
            conv: one that `stands_for` accepts.
        """
        kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        # on "meta" no weights are drawn: the random state stays as it would be without this class
        super().__init__(conv.in_channels, conv.out_channels, kernel, stride, padding, bias=False, device="meta")
        self.weight = conv.weight

    @staticmethod
    def stands_for(conv: nn.Conv2d) -> bool:
        """Whether a convolution is as plain as those of a ResNet."""
        same = all(pair[0] == pair[1] for pair in (conv.kernel_size, conv.stride, conv.padding))
        plain = conv.bias is None and conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
        return same and plain

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        if kind != "cpu" or self._pixels(input) > MOST_PIXELS.get(dtype, 0):
            return super().forward(input)
        y: torch.Tensor = _Conv.apply(input.to(dtype), self.weight.to(dtype), self.stride[0], self.padding[0])
        return y

    def _pixels(self, x: torch.Tensor) -> int:
        return _outputs(x.shape[-2], self) * _outputs(x.shape[-1], self)


def _outputs(side: int, conv: nn.Conv2d) -> int:
    return (side + 2 * int(conv.padding[0]) - conv.kernel_size[0]) // conv.stride[0] + 1


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(x, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = conv2d_input(x.shape, weight, gradient, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(x, gradient, weight.shape[-1], ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


def weight_gradient(x: torch.Tensor, gradient: torch.Tensor, kernel: int, stride: int, padding: int) -> torch.Tensor:
    """The gradient of a convolution's weights.

    Args:
        x: (B, C_in, H, W) its input.
        gradient: (B, C_out, H', W') of its output.
        kernel: side of the kernel in px.
        stride: in px.
        padding: in px, zeros.

    Returns:
        (C_out, C_in, kernel, kernel).
    """
    x, gradient = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    (h, w, c_in), (out_h, out_w, c_out) = x.shape[1:], gradient.shape[1:]
    found = x.new_zeros(c_out, kernel, kernel, c_in)
    for i in range(kernel):
        rows, out_rows = _met(i - padding, stride, h, out_h)
        for j in range(kernel):
            columns, out_columns = _met(j - padding, stride, w, out_w)
            g = gradient[:, out_rows, out_columns].reshape(-1, c_out)
            found[:, i, j] = g.T @ x[:, rows, columns].reshape(-1, c_in)
    return found.permute(0, 3, 1, 2)


def _met(offset: int, stride: int, n: int, n_out: int) -> tuple[slice, slice]:
    """Where a tap meets the map rather than its padding: places in the input, and of the outputs they belong to."""
    first = max(0, -(offset // stride))
    last = min(n_out - 1, (n - 1 - offset) // stride)
    return slice(first * stride + offset, max(0, last * stride + offset + 1), stride), slice(first, last + 1)

"""Arithmetic over all processes of a training: means of the whole batch, and batch norm that sees all of it.

In a training of one process each function is the ordinary one, to the last bit.
"""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import nn
from torch.nn.functional import cross_entropy


def world() -> int:
    """How many processes train together; 1 outside a training over several."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def first() -> bool:
    """Whether this process is the one that writes."""
    return world() == 1 or dist.get_rank() == 0


class _Total(torch.autograd.Function):
    """Sum over processes, whose gradient is the sum over processes again."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor) -> torch.Tensor:
        whole = part.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return _Total.apply(grad)


def total(part: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over processes, of the same shape in each.

    Each process may go on with the sum as if it were alone: the gradients that arrive are the sum of all processes', so
    that the mean which DDP takes of them is the gradient of one process that had the whole batch.
    """
    return part if world() == 1 else _Total.apply(part)


def rows(n: int) -> int:
    """How many rows all processes have: their `n` together."""
    return n if world() == 1 else int(total(torch.tensor(n)))  # on the CPU: a GPU need not be waited for


def mean(values: torch.Tensor) -> torch.Tensor:
    """Mean over the rows of all processes: (B,) -> (), (B, D) -> (D,); a process may have no rows."""
    if world() == 1:
        return values.mean(0)
    return total(values.sum(0)) / rows(len(values))


def mean_cross_entropy(logits: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Class-weighted mean cross entropy over the rows of all processes: (B, C), (B,), (C,) -> () nats."""
    if world() == 1:
        return cross_entropy(logits, y, weight=weights)
    return total(cross_entropy(logits, y, weight=weights, reduction="sum")) / total(weights[y].sum())


def gathered(part: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, one process after another: (B, D) -> (N, D), on the CPU where there are several."""
    if world() == 1:
        return part
    parts: list[Any] = [None] * world()
    dist.all_gather_object(parts, part.cpu())
    return torch.cat(parts)


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm by mean and variance of the whole batch, for CPUs; torch's own SyncBatchNorm asks for a GPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same; a process may have no rows."""
        if not self.training:
            return super().forward(x)
        n = rows(x.numel() // x.shape[1])
        wide = x.to(self.weight.dtype)  # autocast sends bfloat16
        center = total(wide.sum((0, 2, 3))) / n  # (C,)
        aside = wide - center[:, None, None]
        variance = total(aside.square().sum((0, 2, 3))) / n
        self._remember(center.detach(), variance.detach() * (n / max(1, n - 1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (aside * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _remember(self, center: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(center, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


class GlobalBatchNorms(LayerSync):
    """Lightning's hook that exchanges the layers for the time of a fit; parameters and buffers stay the same ones."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Let batch norms see the whole batch."""
        return _exchanged(model, nn.BatchNorm2d, GlobalBatchNorm)

    def revert(self, model: nn.Module) -> nn.Module:
        """Make them ordinary again."""
        return _exchanged(model, GlobalBatchNorm, nn.BatchNorm2d)


def _exchanged(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> nn.Module:
    for layer in model.modules():
        if type(layer) is old:
            layer.__class__ = new
    return model

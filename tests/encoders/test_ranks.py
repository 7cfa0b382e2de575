"""Several processes with a part of a batch each learn what one process learns from all of it."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from encoders import ranks
from encoders.launch import together

WEIGHTS = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)


class Tiny(nn.Module):
    """A convolution without a bias (its gradient would be rounding, by whose sign AdamW goes), a batch norm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.conv(x)).square().mean((2, 3))
        loss = ranks.mean(features.square().sum(1))
        labeled = y >= 0
        if ranks.rows(int(labeled.sum())) == 0:
            return loss
        return loss + ranks.mean_cross_entropy(self.head(features[labeled]), y[labeled], WEIGHTS)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Labels in the first half alone, labels nowhere, and a batch that is too small to share."""
    torch.manual_seed(1)
    sizes = (7, 4, 1)
    ys = [torch.tensor([0, 2, 1, -1, -1, -1, -1]), torch.full((4,), -1), torch.tensor([1])]
    return [(torch.rand(n, 1, 5, 5, dtype=torch.float64), y) for n, y in zip(sizes, ys, strict=True)]


def learn(folder: Path) -> None:
    """One step a batch, in one process or several."""
    torch.manual_seed(0)
    net = Tiny().double()
    world, rank = ranks.world(), 0
    model: nn.Module = net
    if world > 1:
        ranks.GlobalBatchNorms().apply(net)
        rank = torch.distributed.get_rank()
        model = DistributedDataParallel(net, find_unused_parameters=True, broadcast_buffers=False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    losses = []
    for x, y in batches():
        part = slice(len(x) * rank // world, len(x) * (rank + 1) // world)
        optimizer.zero_grad()
        loss = model(x[part], y[part])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seen = ranks.gathered(torch.arange(3.0)[rank :: max(2, world)])
    ranks.GlobalBatchNorms().revert(net)
    assert type(net.norm) is nn.BatchNorm2d
    torch.save({"losses": losses, "seen": seen, **net.state_dict()}, folder / f"{world}-{rank}.pt")


def test_parts_of_a_batch_teach_what_the_whole_teaches(tmp_path: Path) -> None:
    learn(tmp_path)
    together(learn, (tmp_path,), devices=2, num_nodes=1)
    alone, *parts = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert parts[0].pop("seen").tolist() == parts[1].pop("seen").tolist() == [0, 2, 1]
    alone.pop("seen")
    for part in parts:
        assert part.keys() == alone.keys()
        for name, value in alone.items():
            if name == "losses":
                assert part[name] == pytest.approx(value, rel=1e-12)
            else:
                torch.testing.assert_close(part[name], value, rtol=1e-9, atol=1e-12)


def fails(folder: Path) -> None:
    raise ArithmeticError(folder.name)


def test_what_goes_wrong_in_another_process_is_seen(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=rf"(?s)in fails.*ArithmeticError: {tmp_path.name}"):
        together(fails, (tmp_path,), devices=2, num_nodes=1)

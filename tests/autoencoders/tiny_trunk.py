"""A trunk that trains in milliseconds, for tests of what goes on around a training."""

import torch
from torch import nn

from encoders.resnet import FEATURES


class TinyTrunk(nn.Module):
    """Two convolutions with batch norm where ResNet18 has twenty: (B, 1, S, S) -> (B, 512), non-negative."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(FEATURES, FEATURES), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net((x - 0.5) * 2)

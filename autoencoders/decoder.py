"""Latent -> image."""

import torch
from torch import nn


class Decoder(nn.Module):
    """A linear layer to a small map, then transposed convolutions to S x S.

    A kernel of 4 with stride 2 overlaps evenly and leaves no checkerboard (Odena et al. 2016,
    doi:10.23915/distill.00003), and costs less than half of upsampling before a 3 x 3 convolution. Widths halve as
    sides double, so that the decoder costs less than the trunk.
    """

    def __init__(self, latent_dim: int, size: int, width: int = 128) -> None:
        """Set up the layers.

        Args:
            latent_dim: D.
            size: S in px; any S of at least 8.
            width: channels of the smallest map.
        """
        super().__init__()
        self.size = size
        doublings = max(1, (size - 1).bit_length() - 3)  # 28 -> 2, 32 -> 2, 64 -> 3, 128 -> 4
        self.side = -(-size // 2**doublings)  # rounded up; what is too much is cut at the end
        self.width = width
        self.start = nn.Sequential(nn.Linear(latent_dim, width * self.side**2), nn.ReLU())
        blocks: list[nn.Module] = []
        for _ in range(doublings):
            blocks += [_upsampling(width, max(16, width // 2))]
            width = max(16, width // 2)
        self.blocks = nn.Sequential(*blocks)
        self.end = nn.Conv2d(width, 1, kernel_size=3, padding=1)
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU, the same numbers

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Logits of the pixels.

        Args:
            z: (B, D).

        Returns:
            (B, 1, S, S).
        """
        maps = self.start(z).view(len(z), self.width, self.side, self.side)
        maps = maps.contiguous(memory_format=torch.channels_last)
        return self.end(self.blocks(maps))[..., : self.size, : self.size]


def _upsampling(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(width_in, width_out, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(),
    )

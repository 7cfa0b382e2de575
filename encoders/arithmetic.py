"""How this machine multiplies best: the device, the precision, and memory that is not handed back between steps."""

import ctypes
import sys
from functools import cache
from typing import Literal

import torch

Precision = Literal["auto", "32", "bf16"]

# mallopt's parameters (man 3 mallopt): give nothing back to the system, take 64 MiB at a time, map no block alone.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def resolve_precision(wanted: Precision) -> Literal["32-true", "bf16-mixed"]:
    """What `auto` means on this machine."""
    if wanted == "32":
        return "32-true"
    if wanted == "bf16" or torch.cuda.is_available():
        return "bf16-mixed"
    # Asked, not assumed: bf16 on a CPU without these instructions is slower than float32.
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if has_bf16 else "32-true"


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def keep_memory() -> bool:
    """Let the C library keep what a step has freed for the next one, for the rest of this process.

    By default glibc maps every large block anew and gives it back when it is freed; the system then clears its pages
    each time, which costs a training step on a CPU a tenth to a quarter of its time (benchmarks/RESULTS.md).

    Returns:
        Whether the C library took it; another than glibc has other habits.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 2**26)])

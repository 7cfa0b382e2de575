"""Classifier checkpoint -> trunk weights, strictly, with a report of what was taken."""

from dataclasses import dataclass
from pathlib import Path

from encoders.classifier import load_classifier
from encoders.resnet import ResNet18Trunk
from provenance.errors import UserError


@dataclass(frozen=True)
class WarmStart:
    """What a warm start did."""

    source: str
    tensors: int
    parameters: int
    left: tuple[str, ...]
    """Tensors of the classifier that were not taken: its head."""

    def __str__(self) -> str:
        took = f"{self.tensors} tensors ({self.parameters / 1e6:.1f} M numbers)"
        return f"trunk warm-started from {self.source}: {took}, left behind: {', '.join(self.left)}"


def warm_start(trunk: ResNet18Trunk, checkpoint: Path, size: int) -> WarmStart:
    """Copy a trained classifier's trunk into `trunk`.

    Args:
        trunk: gets the weights.
        checkpoint: `best.ckpt` of a classifier run.
        size: side in px of the images the trunk will see.

    Raises:
        UserError: not such a checkpoint, or trained on images of another size.
    """
    classifier = load_classifier(checkpoint)
    trained_on = classifier.hparams["size"]
    if trained_on != size:
        raise UserError(
            f"{checkpoint}: trained on {trained_on} px images, this data has {size} px; "
            "train a classifier on it, or give --from-scratch"
        )
    state = classifier.net.trunk.state_dict()
    trunk.load_state_dict(state, strict=True)
    left = tuple(name for name in classifier.net.state_dict() if not name.startswith("trunk."))
    return WarmStart(
        f"{checkpoint.parent.name}/{checkpoint.name}",
        len(state),
        sum(t.numel() for t in state.values()),
        left,
    )

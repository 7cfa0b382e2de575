"""How pictures reach the disk: PNG, and where it was asked for PDF beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from figures import style
from provenance.files import replacing

PDF_DPI = 300
"""Of what is pixels inside a PDF: dots of a map. Crops keep the pixels they have."""

# so that the same picture is the same bytes
_NO_METADATA = {"CreationDate": None, "Creator": None, "Producer": None}

_pdf_too: ContextVar[bool] = ContextVar("pdf_too", default=False)


@contextmanager
def with_pdf(wanted: bool = True) -> Iterator[None]:
    """Within the block each `picture` is written as PDF too."""
    before = _pdf_too.set(wanted)
    try:
        yield
    finally:
        _pdf_too.reset(before)


@contextmanager
def picture(path: Path, width: int, height: int) -> Iterator[Figure]:
    """`style.picture`, and within `with_pdf` the same drawing as `<stem>.pdf` beside the PNG."""
    with style.picture(path, width, height) as figure:
        yield figure
        if _pdf_too.get():
            with replacing(path.with_suffix(".pdf")) as beside, matplotlib.rc_context({"pdf.fonttype": 42}):
                # TrueType, because journals refuse the Type 3 fonts that are the default
                figure.savefig(beside, format="pdf", dpi=PDF_DPI, metadata=_NO_METADATA)

"""``visionpeft predict`` with a segmentation run: a mask for every case, and an account of those that failed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visionpeft.errors import UserError, VisionPEFTError
from visionpeft.files import atomic_write
from visionpeft.predict.inputs import Input
from visionpeft.predict.overlays import overlay
from visionpeft.predict.scans import Scan
from visionpeft.predict.segmenter import Segmenter

Advance = Callable[[int, int], object]
"""Called with the pieces done and the number of pieces of the current case."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case: the files written, or why there are none."""

    case: Input
    files: tuple[Path, ...] = ()
    error: str | None = None


def predict_case(
    segmenter: Segmenter,
    case: Input,
    output: Path,
    probabilities: bool = False,
    overlays: bool = False,
    advance: Advance | None = None,
) -> Outcome:
    """Write the mask of one case as ``output/<its name>``, in the format and geometry of the image.

    Args:
        segmenter: the network.
        case: an image.
        output: the folder.
        probabilities: also write ``<name>-probabilities``, float32: ``.npy (K, H, W)`` of pictures, NIfTI
            ``(X, Y, Z, K)`` of volumes.
        overlays: also write ``<name>-overlay.png``.
        advance: told how far it is.

    Whatever goes wrong ends up in the outcome, so that one broken file does not cost the others. Every file is written
    whole or not at all.
    """
    try:
        return Outcome(case, tuple(_predict(segmenter, case, output, probabilities, overlays, advance)))
    except VisionPEFTError as error:
        return Outcome(case, error=str(error))
    except Exception as error:  # readers of foreign files raise anything
        return Outcome(case, error=f"{case.files[0]}: {type(error).__name__}: {error}")


def _predict(
    segmenter: Segmenter, case: Input, output: Path, probabilities: bool, overlays: bool, advance: Advance | None
) -> list[Path]:
    scan = segmenter.fitting(case.read(segmenter.axes))
    stem = output / case.name
    written = [output / case.output]
    with _room_for_maps(len(segmenter.classes), scan) if probabilities else nullcontext() as maps:
        mask = _mask(segmenter, scan, maps, advance)
        scan.write_mask(written[0], mask)
        if maps is not None:
            written.append(stem.with_name(f"{stem.name}-probabilities{scan.maps_suffix}"))
            scan.write_maps(written[-1], maps)
    if overlays:
        written.append(atomic_write(stem.with_name(f"{stem.name}-overlay.png"), overlay(scan, mask)))
    return written


def _mask(segmenter: Segmenter, scan: Scan, maps: np.ndarray | None, advance: Advance | None) -> np.ndarray:
    mask = np.zeros(scan.shape, np.uint8 if len(segmenter.classes) <= 256 else np.uint16)
    count, pieces = segmenter.pieces(scan)
    for done, (place, found) in enumerate(pieces, start=1):
        mask[place] = found.argmax(0).numpy()
        if maps is not None:
            maps[(slice(None), *place)] = found.numpy()
        if advance is not None:
            advance(done, count)
    return mask


@contextmanager
def _room_for_maps(classes: int, scan: Scan) -> Any:
    """Float32 ``(classes, *spatial)`` in a temporary file: it may be larger than the memory."""
    with tempfile.TemporaryFile() as file:
        try:
            yield np.memmap(file, np.float32, "w+", shape=(classes, *scan.shape))
        except OSError as error:
            raise UserError(f"no room for the probabilities of {scan.path}: {error}") from error


def failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that wrote nothing."""
    return [outcome for outcome in outcomes if outcome.error is not None]

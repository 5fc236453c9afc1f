"""Photographs with an alpha mask on other backgrounds: pictures whose salient object is known to the pixel.

Each photograph is scaled, placed and blended onto one of three backgrounds, all drawn from ``(seed, its path)``: a
gradient, two gradients that meet at a horizon, or the magnified inside of another photograph of the same folder. The
folder is the group, so that neither near-duplicates nor borrowed backgrounds are shared between parts.
"""

from __future__ import annotations

import zlib
from fnmatch import fnmatch
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, UnidentifiedImageError

from visionpeft.data.segmentation.cards import SegmentationCard
from visionpeft.data.segmentation.cases import Entry, Sample
from visionpeft.data.segmentation.specs import CutoutsReader
from visionpeft.errors import DataError

SAMPLED = 128  # pixels a side at which colours are counted
LEAST_SIDE = 60  # smaller photographs are blurred when they fill a picture
COVERS = (0.08, 0.9)  # share of its own frame that an object may cover: less is a line, more is a plain rectangle
LONGEST = (0.45, 0.85)  # longest side of the object as a share of the picture's side


def cutouts(card: SegmentationCard, folder: Path) -> list[Entry]:
    """One case for each photograph that qualifies; its group is its folder."""
    spec = card.reader
    assert isinstance(spec, CutoutsReader)
    found = sorted({path for pattern in spec.folders for path in folder.glob(f"{pattern}/*.png")})
    kept: dict[str, list[Path]] = {}
    for path in found:
        name = path.relative_to(folder).as_posix()
        if not any(fnmatch(name, glob) for glob in spec.leave_out) and _is_photograph(path, spec.colours):
            kept.setdefault(str(Path(name).parent), []).append(path)
    entries = []
    for group, paths in kept.items():
        for path in paths:
            others = tuple(other for other in paths if other != path)
            key = path.relative_to(folder).as_posix()
            entries.append(Entry(key, group, partial(_composed, path, others, key, spec.size, spec.seed)))
    return entries


def _is_photograph(path: Path, colours: int) -> bool:
    picture = _opened(path)
    if min(picture.size) < LEAST_SIDE:
        return False
    values = np.asarray(picture.resize((SAMPLED, SAMPLED)))
    opaque = values[..., 3] > 127
    shown = np.unique((values[opaque][:, :3] // 16).astype(np.int64) @ (1, 16, 256)).size
    return COVERS[0] <= opaque.mean() <= COVERS[1] and shown >= colours


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"cannot read the image {path}: {error}") from error


def _composed(path: Path, others: tuple[Path, ...], key: str, size: int, seed: int) -> Sample:
    """The object on its background as uint8 ``(3, size, size)``, and its mask (alpha above one half)."""
    rng = np.random.default_rng((seed, zlib.crc32(key.encode())))
    kind = rng.choice(["gradient", "horizon", "photograph"] if others else ["gradient", "horizon"])
    if kind == "photograph":
        canvas = _magnified(others[rng.integers(len(others))], size, rng)
    else:
        canvas = _gradients(size, 1 + (kind == "horizon"), rng)
    picture = _opened(path)
    ratio = rng.uniform(*LONGEST) * size / max(picture.size)
    width, height = (max(1, round(side * ratio)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    left, top = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
    canvas.alpha_composite(picture, (left, top))
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + height, left : left + width] = np.asarray(picture)[..., 3] > 127
    return Sample(np.asarray(canvas.convert("RGB")).transpose(2, 0, 1), mask, (1.0, 1.0))


def _gradients(size: int, bands: int, rng: np.random.Generator) -> Image.Image:
    """Bands one above the other, each a gradient between two colours, with a little grain."""
    edges = [0, *sorted((rng.uniform(0.3, 0.7, bands - 1) * size).astype(int)), size]
    rows, columns = np.indices((size, size)) / size
    values = np.zeros((size, size, 3))
    for first, end in pairwise(edges):
        angle, (one, two) = rng.uniform(0, 2 * np.pi), rng.uniform(20, 235, (2, 3))
        along = np.clip(0.5 + np.cos(angle) * (rows - 0.5) + np.sin(angle) * (columns - 0.5), 0, 1)[..., None]
        values[first:end] = (one * along + two * (1 - along))[first:end]
    values += rng.normal(0, rng.uniform(0, 8), values.shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGBA")


def _magnified(path: Path, size: int, rng: np.random.Generator) -> Image.Image:
    """The inside of a photograph, magnified and softened; what is transparent takes the object's mean colour."""
    picture = _opened(path)
    values = np.asarray(picture)
    mean = values[values[..., 3] > 127][:, :3].mean(0).astype(int)
    ground = Image.new("RGBA", picture.size, (*mean.tolist(), 255))
    ground.alpha_composite(picture)
    side = int(min(picture.size) * rng.uniform(0.3, 0.5))
    left, top = ((length - side) // 2 for length in picture.size)
    inside = ground.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return inside.filter(ImageFilter.GaussianBlur(size / 128))

"""The key ``reader`` of a segmentation card: one model a format."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from visionpeft.data.sources import Strict

Part = Literal["train", "val", "test"]
View = Literal["axial", "coronal", "sagittal"]
Range = tuple[float, float]
Box = tuple[int, int, int, int]
Count = Annotated[int, Field(ge=1)]


class TilesReader(Strict):
    """One large picture and its mask, cut into tiles of ``tile`` pixels a side.

    ``regions`` gives each part rectangles ``[top, left, bottom, right]`` that hold a whole number of tiles; what lies
    between the rectangles of different parts is the margin. A mask of numbered objects becomes one class.
    """

    format: Literal["tiles"]
    image: str
    mask: str
    tile: Annotated[int, Field(ge=8)]
    regions: dict[Part, tuple[Box, ...]]


class TissueReader(Strict):
    """A brain with one probability map (0…255) a class, cut into axial slices or slabs.

    A voxel belongs to the class with the largest map, if that exceeds one half; else to the background. ``slabs`` gives
    each part ranges in millimetres along the third axis of the scanner's space. With ``axes: 2`` every slice of a range
    is a case (``step`` keeps each n-th), with ``axes: 3`` every range is cut into ``blocks`` along the first two axes.
    """

    format: Literal["tissue"]
    image: str
    maps: tuple[str, ...] = Field(min_length=1)
    slabs: dict[Part, tuple[Range, ...]]
    step: Count = 1
    blocks: tuple[Count, Count] = (1, 1)


class Lesion(Strict):
    """What a simulated lesion looks like; lengths in millimetres, changes as shares of the brain's mean intensity.

    ``appearance``: ``plain`` is lighter than the tissue all over; ``rim`` is a light core inside a dark rim;
    ``mix`` has a light and a dark half, with a level between them as in a settled haematoma.
    ``volume_ml`` bounds the volumes, drawn uniformly in their logarithm. ``irregularity`` is how far the surface
    departs from an ellipsoid, as a share of the radius. ``texture`` is the standard deviation of mottling inside,
    ``edge`` the blur at the surface, ``rim`` the rim's share of the lesion's volume.
    """

    appearance: Literal["plain", "rim", "mix"]
    volume_ml: Range = (1.0, 30.0)
    contrast: float = 0.6
    irregularity: float = 0.25
    texture: float = 0.05
    edge: float = 1.0
    rim: float = 0.5


class Scanner(Strict):
    """How patients and their pictures differ.

    ``noise`` is a standard deviation as a share of the brain's mean, ``bias`` the largest share by which a smooth field
    changes the intensity, ``gamma`` the range of exponents of the tissue's contrast. ``bend`` is a smooth in-plane
    displacement in millimetres, ``rotate`` in degrees, ``scale`` a share.
    """

    noise: float = 0.02
    bias: float = 0.1
    gamma: Range = (1.0, 1.0)
    bend: float = 3.0
    rotate: float = 8.0
    scale: float = 0.08


class Patients(Strict):
    """The synthetic patients of one part: ``count`` of them, drawn from ``seed``, dealt to the ``slabs`` in turn.

    A slab gives a range in millimetres of standard space for the lesion's centre along the axis of each view: ``z`` for
    axial, ``y`` for coronal and the distance from the midline for sagittal slices (the template is symmetric).
    """

    count: Count
    seed: int
    slabs: tuple[dict[View, Range], ...] = Field(min_length=1)


class LesionsReader(Strict):
    """Simulated haematoma-like lesions in a real T1 template; see :mod:`visionpeft.data.segmentation.lesions`.

    ``shrink`` voxels a side are averaged to one; the slices of each of the ``views`` are padded or cut to ``size``.
    """

    format: Literal["lesions"]
    image: str
    shrink: Count = 2
    size: Annotated[int, Field(ge=32)] = 96
    views: tuple[View, ...] = ("axial",)
    lesion: Lesion
    scanner: Scanner = Scanner()
    patients: dict[Part, Patients]


class CutoutsReader(Strict):
    """Photographs with an alpha mask, put on other backgrounds; see :mod:`visionpeft.data.segmentation.cutouts`.

    ``folders`` (globs below the data set's folder) are searched for PNG files; ``leave_out`` are globs of paths.
    ``colours`` is how many of 4,096 colours a picture must show to count as a photograph, ``size`` the side of a case.
    """

    format: Literal["cutouts"]
    folders: tuple[str, ...] = Field(min_length=1)
    leave_out: tuple[str, ...] = ()
    colours: int = 100
    size: Annotated[int, Field(ge=32)] = 128
    seed: int = 0


class ThresholdsReader(Strict):
    """A CT inside an InVesalius project (``file``), labelled by Hounsfield thresholds and cut along its first axis.

    ``thresholds`` gives each class but the background its range in HU; the last class that fits wins, and voxels away
    from the largest object (the head-holder, cables) are background. ``slabs`` gives
    each part ranges of slice numbers ``[first, end)``, of which each ``step``-th is taken; ``shrink`` keeps each n-th
    row and column. Labels made so are weak: they know no anatomy.
    """

    format: Literal["thresholds"]
    file: str
    thresholds: tuple[Range, ...] = Field(min_length=1)
    slabs: dict[Part, tuple[tuple[int, int], ...]]
    step: Count = 1
    shrink: Count = 1


class PairsReader(Strict):
    """Two folders with equal names inside: ``images/a.png`` and ``masks/a.png``.

    PNG, TIFF, JPEG, NIfTI and DICOM (a file, or a folder with one series) are read; image and mask may differ in
    format. Files below ``train/``, ``val/`` and ``test/`` inside both folders are official parts. ``labels`` maps the
    values of the masks to classes. ``group`` is a regular expression; what it finds in the name (its first bracket)
    names the patient.
    """

    format: Literal["pairs"]
    images: str = "images"
    masks: str = "masks"
    labels: dict[int, int] = Field(default_factory=dict)
    group: str | None = None


class DecathlonReader(Strict):
    """The Medical Segmentation Decathlon's ``dataset.json``, as MONAI reads it.

    The list ``training`` is divided by ``split``; with ``validation`` (and ``test`` where it has labels) in the file,
    these may be taken as ``official``. ``labels`` and ``group`` are those of :class:`PairsReader`.
    """

    format: Literal["decathlon"]
    file: str = "dataset.json"
    labels: dict[int, int] = Field(default_factory=dict)
    group: str | None = None


Reader = Annotated[
    TilesReader | TissueReader | LesionsReader | CutoutsReader | ThresholdsReader | PairsReader | DecathlonReader,
    Field(discriminator="format"),
]

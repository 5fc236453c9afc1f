"""Cards of pictures for generative models: collections, how a picture is fitted, its style, the split by concept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from visionpeft.data.captions.cards import Files
from visionpeft.data.pictures.styles.options import Style
from visionpeft.data.sources import Sha256, Strict

Share = Annotated[float, Field(ge=0, lt=1)]


class EmojiReader(Strict):
    """``emoji-datasource``: the Unicode name as caption, the subcategory as class, the code points as concept."""

    format: Literal["emoji"]
    vendor: str


class FolderReader(Strict):
    """Pictures anywhere below a folder; the folder that a picture lies in is its class.

    ``captions`` says where the words come from: ``sidecar`` (``<picture>.txt`` beside each, first line), ``metadata``
    (``metadata.jsonl`` with ``file_name`` and ``text`` a line, as Hugging Face's imagefolder has it), ``folder`` (the
    name of the picture's folder) or ``none``. ``auto`` takes the first of them that the folder has. Files that match a
    glob of ``leave_out`` are no pictures of the data set; with ``only`` those alone are that match one of its globs.
    """

    format: Literal["folder"]
    captions: Literal["auto", "metadata", "sidecar", "folder", "none"] = "auto"
    only: tuple[str, ...] = ("*",)
    leave_out: tuple[str, ...] = ()


class PictureCollection(Strict):
    """Pictures of one origin."""

    reader: Annotated[EmojiReader | FolderReader, Field(discriminator="format")]
    licence: str
    attribution: str
    images: Files


class PictureRule(Strict):
    """How pictures are stored.

    Attributes:
        size: pixels of a side of the stored squares.
        fit: ``pad`` shows the whole picture on white, ``crop`` cuts the middle square out.
        megapixels: larger pictures are left out before they are decoded; by default one above 100 is an error.
    """

    size: Annotated[int, Field(ge=8, le=2048)] = 64
    fit: Literal["pad", "crop"] = "pad"
    megapixels: Annotated[float, Field(gt=0, le=100)] | None = None


class PictureSplit(Strict):
    """How pictures are divided: by a hash of what they show, so that a concept is in one part in every style.

    ``test`` and ``val`` are shares of all concepts (0 leaves a part empty), or ``official``: the folders ``train``,
    ``val`` and ``test``. ``sha256`` pins the outcome.
    """

    test: Share | Literal["official"] = 0.1
    val: Share | Literal["official"] = 0.05
    seed: int = 0
    sha256: Sha256 | None = None


class PicturesCard(Strict):
    """A card of pictures. Every field without a default must be in ``datasets/<name>.yaml``.

    With a ``style``, every picture of the collections is redrawn by it: the pairs share their concepts, captions and
    parts with the card that has none.
    """

    name: str
    title: str
    task: Literal["pictures"]
    licence: str
    attribution: str
    homepage: str
    collections: tuple[PictureCollection, ...] = Field(min_length=1)
    pictures: PictureRule = PictureRule()
    style: Style | None = None
    split: PictureSplit = PictureSplit()

    @property
    def parts(self) -> tuple[Files, ...]:
        """Everything that is fetched, collection by collection."""
        return tuple(collection.images for collection in self.collections)

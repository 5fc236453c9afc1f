"""What the figures say of *real* pictures of two styles, before they are asked about generated ones.

``python -m visionpeft.metrics.generation emoji-google emoji-ink`` (two cards of pictures with the same concepts). The
judge and the detector of copies learn from the train part; everything is measured on concepts of the test part. With
``--through run:vae-emoji`` it is also measured what an autoencoder leaves of them: no latent diffusion does better.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from visionpeft.backbones.pipelines.autoencoder import open_autoencoder
from visionpeft.backbones.pipelines.latents import decode, encode
from visionpeft.data.pictures.open import open_pictures
from visionpeft.data.pictures.table import PictureTable
from visionpeft.metrics.generation.colour import RECOLOURINGS, recolour
from visionpeft.metrics.generation.content import ConceptFinder
from visionpeft.metrics.generation.distances import fid, fid_floor, kid
from visionpeft.metrics.generation.novelty import CopyDetector, diversity
from visionpeft.metrics.generation.space import efficientnet_features
from visionpeft.metrics.generation.style import StyleJudge


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m visionpeft.metrics.generation", description=__doc__)
    parser.add_argument("source", help="card of the source's style, as emoji-google")
    parser.add_argument("target", help="card of the target's style, as emoji-ink")
    parser.add_argument("--train", type=int, default=300, help="pictures of each style to learn from")
    parser.add_argument("--shots", type=int, default=32, help="about so many training pictures are copied")
    parser.add_argument("--through", help="autoencoder that the target's pictures are passed through, as run:vae-emoji")
    chosen = parser.parse_args()
    source, target = open_pictures(chosen.source), open_pictures(chosen.target)
    passed = _through(chosen.through) if chosen.through else None
    for line in figures(source, target, chosen.train, chosen.shots, passed):
        print(line, flush=True)


Passed = Callable[[Tensor], Tensor]


def figures(
    source: PictureTable, target: PictureTable, train: int, shots: int, passed: Passed | None = None
) -> Iterator[str]:
    """Line by line, what every figure says of the test parts of two tables that share concepts.

    Args:
        train, shots: as the command's.
        passed: what an autoencoder leaves of pictures, uint8 ``(N, 3, S, S)``.
    """
    shared = sorted(set(source.concepts) & set(target.concepts))
    learnt, tested = ([name for name in shared if _part(target, name) == part] for part in ("train", "test"))
    spread = torch.linspace(0, len(learnt) - 1, min(train, len(learnt))).round().long().tolist()
    learnt = [learnt[place] for place in spread]
    seen, new = ([_of(table, names) for table in (source, target)] for names in (learnt, tested))
    yield f"{len(learnt)} concepts to learn from, {len(tested)} others to measure on"
    judge = StyleJudge.fit(seen[0], seen[1])
    yield from _style(judge, *new)
    yield from _content(new[0], new[1], tested)
    yield from _distances(*new)
    yield from _copies(seen[1], new[1], shots)
    if passed is not None:
        yield "the target's pictures through the autoencoder (ceiling):"
        yield from _left(judge, new[0], new[1], passed(new[1]), tested)


def _style(judge: StyleJudge, source: Tensor, target: Tensor) -> Iterator[str]:
    found = judge.verdicts(source, target)
    yield f"style: found in {found.target:.3f} of the target's and {found.source:.3f} of the source's pictures"
    for way in RECOLOURINGS:
        found = judge.verdicts(recolour(source, target, way), recolour(target, source, way))
        yield f"  in each other's colours ({way}): {found.target:.3f} and {found.source:.3f}"


def _left(judge: StyleJudge, source: Tensor, target: Tensor, passed: Tensor, tested: list[str]) -> Iterator[str]:
    space = efficientnet_features()
    yield f"  style: found in {judge.in_style(passed).double().mean().item():.3f}"
    yield from (f"  {line}" for line in _content(source, passed, tested))
    yield f"  KID ×1000 to the target {kid(space(target), space(passed)).value:.1f}"


def _through(source: str) -> Passed:
    """The pictures that an autoencoder of :func:`open_autoencoder` makes of others of its size."""
    vae = open_autoencoder(source, size=0, device="cpu").eval()

    def passed(images: Tensor) -> Tensor:
        pieces = (images[start : start + 32].float() / 127.5 - 1 for start in range(0, len(images), 32))
        with torch.no_grad():
            made = torch.cat([decode(vae, encode(vae, piece, None)) for piece in pieces])
        return ((made.clamp(-1, 1) + 1) * 127.5).round().byte()

    return passed


def _content(source: Tensor, target: Tensor, concepts: list[str]) -> Iterator[str]:
    ranks = ConceptFinder(source, concepts).ranks(target, concepts)
    top1, top5 = ((ranks < k).double().mean() for k in (1, 5))
    yield f"own concept among {len(concepts)} of the source: {top1:.3f}, among the nearest five {top5:.3f} (ceiling)"


def _distances(source: Tensor, target: Tensor) -> Iterator[str]:
    space = efficientnet_features()
    drawn, real = space(source), space(target)
    half, order = len(real) // 2, torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    apart, floor = kid(real, drawn), kid(real[order[:half]], real[order[half:]])
    yield f"KID ×1000 of source to target {apart.value:.1f} ({apart.low:.1f} – {apart.high:.1f})"
    yield f"  of one half of the target to the other {floor.value:.1f} ({floor.low:.1f} – {floor.high:.1f})"
    yield f"FID of source to target {fid(real, drawn):.2f}, of {half} real pictures {fid_floor(real, half):.2f} (floor)"
    yield f"diversity of the target {diversity(real):.3f}, of the source {diversity(drawn):.3f}"


def _copies(train: Tensor, unseen: Tensor, shots: int) -> Iterator[str]:
    """How often slightly changed training pictures are found, and other real ones by mistake."""
    from torchvision.transforms.v2.functional import gaussian_blur

    known, half = train[:: max(1, len(train) // shots)], len(unseen) // 2
    detector = CopyDetector.fit(known, unseen[::2])
    changed = {"shifted": known.roll((1, -1), (2, 3)), "softened": gaussian_blur(known, [7, 7], [0.8, 0.8])}
    changed["recoloured"] = recolour(known, unseen, "moments")
    found = ", ".join(f"{name} {detector.copies(images).double().mean():.3f}" for name, images in changed.items())
    false = detector.copies(unseen[1::2]).double().mean()
    yield f"copies of {len(known)} training pictures found: {found}; of {half} real ones never shown: {false:.3f}"


def _part(table: PictureTable, concept: str) -> str:
    return str(table.split[table.concepts.index(concept)])


def _of(table: PictureTable, concepts: list[str]) -> Tensor:
    """Pictures ``(N, 3, S, S)`` of these concepts, the first of each."""
    places = [table.concepts.index(concept) for concept in concepts]
    return torch.from_numpy(table.images[places]).permute(0, 3, 1, 2).contiguous()


if __name__ == "__main__":
    main()

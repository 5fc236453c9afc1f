"""How far generated pictures are from real ones as sets of features: KID and FID, of any feature space.

Torchmetrics' classes want pictures and keep Inception inside; these take features, so that the space is the caller's
and is named. On equal features both agree with torchmetrics to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionpeft.errors import OptionError
from visionpeft.metrics.classification import Estimate

KID_SCALE = 1000
"""KID is written in thousandths, as in most papers."""


def kid(
    real: Tensor, fake: Tensor, *, level: float = 0.95, draws: int = 200, seed: int = 0, degree: int = 3
) -> Estimate:
    """Kernel distance, ×1000: the unbiased squared MMD under ``k(x, y) = (x·y / D + 1)³``, over all pairs.

    The interval comes from random halves of both sets, drawn without replacement: the delete-half jackknife, whose
    spread is that of the whole sets' estimate. Where both sets come from one distribution it is wider than needed.
    The value can be negative there, since it is unbiased and the truth is 0.

    Args:
        real: ``(N, D)`` features of real pictures, N ≥ 4.
        fake: ``(M, D)`` features of generated ones, M ≥ 4; M may differ from N.
        level: share of the halves inside the interval.
        draws: number of halves.
        seed: of the halves; equal arguments give equal intervals.
        degree: of the polynomial.

    Raises:
        OptionError: fewer than four pictures, different D, or features that are not finite.

    Source: Demystifying MMD GANs, 2018; the jackknife: A General Theory for Jackknife Variance Estimation, 1989.
    """
    real, fake = _checked(real, fake, least=4)
    scale = real.shape[1]
    kernels = [(a @ b.T / scale + 1) ** degree for a, b in ((real, real), (fake, fake), (real, fake))]
    everything = torch.ones(1, len(real)).double(), torch.ones(1, len(fake)).double()
    value = _mmd(*kernels, *everything)[0]  # pyright: ignore[reportCallIssue] (three kernels, two sets)
    generator = torch.Generator().manual_seed(seed)
    halves = _mmd(*kernels, *(_halves(len(part), draws, generator) for part in (real, fake)))
    ends = torch.quantile(halves - halves.mean(), torch.tensor([(1 - level) / 2, (1 + level) / 2]).double())
    low, high = (KID_SCALE * (value + ends)).tolist()
    return Estimate(KID_SCALE * value.item(), low, high)


def fid(real: Tensor, fake: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features: ``|μ−μ'|² + tr(Σ + Σ' − 2(ΣΣ')½)``.

    Exact for any sizes, also where N < D. It is **biased upwards by small samples**, the more so the larger D is: two
    sets of real pictures do not score 0. Compare only figures of equal sizes, and give :func:`fid_floor` beside them.

    Args:
        real: ``(N, D)``, N ≥ 2.
        fake: ``(M, D)``, M ≥ 2.

    Raises:
        OptionError: fewer than two pictures, different D, or features that are not finite.

    Source: GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017.
    """
    real, fake = _checked(real, fake, least=2)
    means = (real.mean(0) - fake.mean(0)).square().sum()
    roots = [_root(features) for features in (real, fake)]
    traces = sum(root.square().sum() for root in roots)
    # tr (Σ Σ')½ is the nuclear norm of R R'ᵀ where Σ = RᵀR: exact, and small where there are few pictures.
    shared = torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc")
    return (means + traces - 2 * shared).clamp(min=0).item()


def fid_floor(real: Tensor, count: int, *, draws: int = 5, seed: int = 0) -> float:
    """Mean FID of ``count`` real pictures to the others: what a perfect generator would score with so many pictures.

    Args:
        real: ``(N, D)`` features of real pictures.
        count: pictures in the smaller part, 2 … N − 2.
        draws: random parts that are averaged.
        seed: of the parts.

    Raises:
        OptionError: ``count`` leaves fewer than two pictures on a side.
    """
    if not 2 <= count <= len(real) - 2:
        raise OptionError(f"count must lie in 2 … {len(real) - 2} with {len(real)} real pictures, found {count}")
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(real), generator=generator) for _ in range(draws)]
    return sum(fid(real[order[count:]], real[order[:count]]) for order in orders) / draws


def _checked(real: Tensor, fake: Tensor, least: int) -> tuple[Tensor, Tensor]:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) < least:
        raise OptionError(
            f"a distance needs features (N, D) and (M, D) of at least {least} pictures each, found "
            f"{tuple(real.shape)} and {tuple(fake.shape)}"
        )
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise OptionError("features are not finite: the pictures or the feature network hold NaN or infinity")
    return real.detach().double().cpu(), fake.detach().double().cpu()


def _mmd(among_real: Tensor, among_fake: Tensor, across: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """``(draws,)`` unbiased squared MMDs of the pictures that the rows of ``real`` and ``fake`` count as 1."""
    n, m = real.sum(1), fake.sum(1)
    within = [
        (((rows @ kernel) * rows).sum(1) - rows @ kernel.diag()) / (size * (size - 1))
        for rows, kernel, size in ((real, among_real, n), (fake, among_fake, m))
    ]
    return within[0] + within[1] - 2 * ((real @ across) * fake).sum(1) / (n * m)


def _halves(count: int, draws: int, generator: torch.Generator) -> Tensor:
    """``(draws, count)`` zeros and ones: a random half in each row."""
    order = torch.rand(draws, count, generator=generator).argsort(1)
    return (order < count // 2).double()


def _root(features: Tensor) -> Tensor:
    """R with RᵀR = the covariance; no more rows than needed."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return centred if len(centred) <= centred.shape[1] else torch.linalg.qr(centred, mode="r").R

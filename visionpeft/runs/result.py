"""What a run produces: trials, the rows of its table, and the result that ``vp.run`` returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from visionpeft.errors import unknown
from visionpeft.runs import folder as folders


@dataclass(frozen=True)
class Trial:
    """One training with one seed (and fold) and one learning rate.

    ``val`` holds ``loss`` and the task's figures (``top1``, ``dice``, …) after the last step; ``seconds`` is the wall
    time of training and ``cpu_seconds`` its processor time; ``peak_memory`` is in bytes (on the device for CUDA, else
    resident memory). ``trainable`` counts trained weights, ``adapter`` those of the adapter, ``total`` all weights of
    the network without the adapter. ``folder`` lies inside the run folder.
    """

    entry: str
    seed: int
    lr: float
    val: dict[str, float]
    trainable: int
    adapter: int
    total: int
    steps: int
    seconds: float
    cpu_seconds: float
    peak_memory: int
    folder: str
    fold: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trial:
        return cls(**data)


@dataclass(frozen=True)
class Row:
    """One line of the table: the trials of an entry pooled over folds and seeds.

    ``value`` is the figure of merit (:attr:`RunResult.metric`: top-1, Dice) and ``interval`` its 95 % bootstrap
    interval; ``val`` is that figure on the validation split, ``figures`` the table's further columns. ``gain`` is how
    far the main entry is ahead (main − this row, or the other way round where lower is better) with its paired
    interval, None for the main entry itself.
    """

    label: str
    kind: str  # "main", "compare" or "baseline"
    value: float
    interval: tuple[float, float]
    by_seed: dict[int, float]
    figures: dict[str, float] = field(default_factory=dict)
    val: float | None = None
    lr: float | None = None
    trainable: int = 0
    adapter: int = 0
    total: int = 0
    seconds: float = 0.0
    peak_memory: int | None = None
    swept: Any = None
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None

    @property
    def share(self) -> float:
        """Trained weights as a fraction of all weights."""
        return self.trainable / self.total if self.total else 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        pairs = {key: tuple(data[key]) for key in ("interval", "gain_interval") if data[key] is not None}
        return cls(**{**data, **pairs, "by_seed": {int(seed): value for seed, value in data["by_seed"].items()}})


@dataclass(frozen=True)
class RunResult:
    """Where a finished run lies and what it found.

    ``metric`` is the key of the figure of merit: ``top1``, ``balanced`` (top-1 of held-out classes), ``dice``.
    ``adapter`` is None for ``head_only`` and ``full``; ``merged`` is None where ``merge_note`` says why.
    """

    folder: Path
    digest: str
    metric: str
    rows: tuple[Row, ...]
    trials: tuple[Trial, ...]
    main: Row
    tuning: dict[str, Any]
    merge_note: str
    environment: dict[str, str]

    @classmethod
    def load(cls, folder: str | Path) -> RunResult:
        """Read a run folder.

        Raises:
            UserError: it holds no ``metrics.json``, or one that is damaged.
        """
        folder = Path(folder)
        data = folders.read_json(folder / folders.METRICS)
        rows = tuple(Row.from_json(row) for row in data["rows"])
        return cls(
            folder=folder,
            digest=data["digest"],
            metric=data["metric"],
            rows=rows,
            trials=tuple(Trial.from_json(trial) for trial in data["trials"]),
            main=next(row for row in rows if row.label == data["main"]),
            tuning=data["tuning"],
            merge_note=data["merge"],
            environment=data["environment"],
        )

    @property
    def report(self) -> Path:
        return self.folder / folders.REPORT

    @property
    def adapter(self) -> Path | None:
        return self._made(folders.ADAPTER)

    @property
    def merged(self) -> Path | None:
        return self._made(folders.MERGED)

    def row(self, label: str) -> Row:
        """The row with this label.

        Raises:
            UnknownNameError: there is none; near labels are shown.
        """
        for row in self.rows:
            if row.label == label:
                return row
        raise unknown("row", label, [row.label for row in self.rows])

    def _made(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.exists() else None

"""Drawing with a diffusion pipeline and several adapters, which are mixed and switched while the base stays loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionpeft.backbones.pipelines import Family
from visionpeft.errors import OptionError, unknown
from visionpeft.predict.sampling_sources import Base, adapter_folders, handle_of, holding, open_base, place_of
from visionpeft.surgery.folder import MODULES, load, read_meta, read_tensors
from visionpeft.surgery.ledger import known_to
from visionpeft.surgery.slots import check_name
from visionpeft.surgery.switch import activate, disable

AT_ONCE = 4
"""Pictures that are drawn together."""
Step = Callable[[int, int], None]
"""Called with the steps that are done and all there are."""


class Sampler:
    """A pipeline with named adapters.

    Args:
        source: a pipeline (a folder, ``run:NAME``, a repository of the hub), or a finished run of the task
            ``diffuse``, whose adapters are there from the start under the name of its folder.
        entry: of a run; default: the main one.
        device: where it draws; default: a GPU where there is one.

    ``strengths`` tells which adapters act, and how strongly.

    Raises:
        UserError: whatever is wrong with the source.
    """

    def __init__(self, source: str | Path, *, entry: str | None = None, device: str | None = None) -> None:
        self.opened: Base = open_base(source, entry)
        self.strengths: dict[str, float] = {}
        self._members: dict[str, tuple[str, ...]] = {}  # handle → names on the denoiser
        self._paths: dict[str, Path] = {}
        self._before = dict(self.opened.before)
        self.denoiser.eval()
        self.opened.pipeline.pipe.to(_device(device))
        if self.opened.own:
            self._add(handle_of(Path(source)), Path(source), self.opened.own, 1.0)

    @property
    def denoiser(self) -> nn.Module:
        return self.opened.pipeline.denoiser

    @property
    def family(self) -> Family:
        return self.opened.pipeline.family

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of all adapters, acting or not."""
        return tuple(self._members)

    def add(self, path: str | Path, name: str | None = None, strength: float = 1.0) -> str:
        """Load an adapter beside the others, or set the strength of one that is there, and return its name.

        Args:
            path: an adapter folder, a finished run, or a LoRA file of another tool.
            name: default: that of the folder or file.
            strength: at once; see :meth:`use`.

        Raises:
            AdapterFileError: none, a pickle, a damaged one, or one made for another base or architecture.
            OptionError: the name is taken.
        """
        path = Path(path).expanduser()
        if name is None and (there := self._present(path)):
            self.use({**self.strengths, there: strength})
            return there
        name = name or self._free(handle_of(path))
        check_name(name)
        if name in self._members:
            raise OptionError(f"an adapter {name!r} is there already: {self._paths[name]}")
        self._add(name, path, self._loaded(path, name), strength)
        return name

    def use(self, strengths: Mapping[str, float]) -> None:
        """Make just these adapters act; nothing is loaded again.

        Raises:
            UnknownNameError: there is no adapter of a name.
            UserError: a strength is no finite number.
        """
        for name in strengths:
            if name not in self._members:
                raise unknown("adapter", name, self._members)
        if self._members:
            activate(self.denoiser, {one: value for name, value in strengths.items() for one in self._members[name]})
        self.strengths = dict(strengths)

    @contextmanager
    def base(self):
        """Context in which the base draws alone, without adapters and without what was trained beside them."""
        with disable(self.denoiser), holding(self.denoiser, self._before):
            yield

    def prompts(self, given: Sequence[str]) -> list[str]:
        """The prompts, or one empty one for a pipeline that takes none.

        Raises:
            OptionError: none for a pipeline that needs one, or one for a pipeline that takes none.
            UnknownNameError: a class that the pipeline does not know.
        """
        kind, texts = type(self.opened.pipeline.pipe).__name__, [text for text in given if text.strip()]
        if self.family.conditioned_by == "nothing":
            if texts:
                raise OptionError(f"prompt {texts[0]!r}: a {kind} draws whatever it wants and takes no prompts")
            return [""]
        if not texts:
            wanted = "name of a class" if self.family.conditioned_by == "class" else "text"
            raise OptionError(f"there is no prompt: a {kind} draws what one says; give --prompt with a {wanted}")
        if self.family.conditioned_by == "class":
            self.family.conditioning(self.opened.pipeline.pipe, texts)  # says now which it does not know
        return texts

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
        negative: str | None = None,
        progress: Step | None = None,
    ) -> Tensor:
        """Draw a picture for every prompt with its own seed, as uint8 ``(N, 3, H, W)``.

        Args:
            prompts, seeds: as many of the one as of the other.
            steps, guidance, size: default: as the run drew in testing; of a pipeline 25 steps, the family's own
                guidance, and the size it was trained for.
            negative: a prompt to move away from.
            progress: called after every step.

        Raises:
            OptionError: no prompt, another number of seeds, or an option that the pipeline does not have.
        """
        settings: dict[str, Any] = {**self.settings(steps, guidance, size), "negative": negative}
        if not prompts or len(prompts) != len(seeds):
            raise OptionError(f"{len(prompts)} prompts and {len(seeds)} seeds: every picture takes one of each")
        starts, drawn = range(0, len(prompts), AT_ONCE), []
        with self._counting(len(starts) * settings["steps"], progress):
            for start in starts:
                part = slice(start, start + AT_ONCE)
                pipe = self.opened.pipeline.pipe
                drawn.append(self.family.sample(pipe, prompts[part], seeds=seeds[part], **settings).cpu())
        return torch.cat(drawn)

    def settings(self, steps: int | None, guidance: float | None, size: int | None) -> dict[str, Any]:
        """What is drawn with, defaults filled in."""
        chosen, own = self.opened, self.opened.guidance if self.opened.guidance is not None else self.family.guidance
        return {
            "steps": steps or chosen.steps,
            "guidance": own if guidance is None else guidance,
            "size": size or chosen.size or self.family.image_size(chosen.pipeline.pipe),
        }

    def mixture(self) -> dict[str, dict[str, Any]]:
        """The adapters that act: name → path and strength."""
        return {n: {"path": str(self._paths[n]), "strength": s} for n, s in self.strengths.items()}

    def _present(self, path: Path) -> str | None:
        """The adapter that a path or a bare name stands for, if it is there."""
        if str(path) in self._members and not path.exists():
            return str(path)
        return next((name for name, other in self._paths.items() if place_of(other) == place_of(path)), None)

    def _free(self, name: str) -> str:
        found, number = name, 2
        while found in self._members or found in known_to(self.denoiser):
            found, number = f"{name}-{number}", number + 1
        return found

    def _loaded(self, path: Path, name: str) -> tuple[str, ...]:
        with ExitStack() as stack:
            parts = adapter_folders(path) or [stack.enter_context(self._taken_over(path))]
            names = tuple(name if place == 0 else f"{name}-{place + 1}" for place in range(len(parts)))
            for folder, member in zip(parts, names, strict=True):
                self._load_one(folder, member)
        self.denoiser.eval()
        return names

    def _load_one(self, folder: Path, member: str) -> None:
        """Load a folder of ours, and remember what it replaces."""
        whole, state = read_tensors(folder, read_meta(folder), MODULES), self.denoiser.state_dict()
        before = {key: state[key].clone() for key in whole if key in state}
        load(self.denoiser, folder, member)
        self._before = before | self._before

    @contextmanager
    def _taken_over(self, path: Path):
        """Context with a folder of ours that says what a file of another tool says."""
        from visionpeft.export.exchange import read
        from visionpeft.export.exchange.twins import plain_twin

        with tempfile.TemporaryDirectory() as temporary:
            plain = plain_twin(self.denoiser)
            yield read(path, plain, temporary, component=self.family.component).path

    def _add(self, name: str, path: Path, members: tuple[str, ...], strength: float) -> None:
        self._members[name], self._paths[name] = members, path
        self.use({**self.strengths, name: strength})

    def _counting(self, total: int, progress: Step | None) -> AbstractContextManager[None]:
        """Context that tells of every call of the denoiser."""
        return _calls(self.denoiser, lambda done: progress(min(done, total), total) if progress else None)


@contextmanager
def _calls(model: nn.Module, tell: Callable[[int], None]):
    done = 0

    def hook(*_: Any) -> None:
        nonlocal done
        done += 1
        tell(done)

    handle = model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _device(name: str | None) -> torch.device:
    """The device of that name, if this machine has it."""
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=chosen).device
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device {chosen!r} cannot be used here: {str(error).splitlines()[0]}") from error

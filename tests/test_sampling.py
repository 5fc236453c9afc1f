"""Drawing with several adapters on one base: mixed, switched, from other tools' files, and refused with a reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from denoisers import adapted
from PIL import Image
from pipelines import LENGTH, SIZE, small_pipe
from test_run_diffuse import recipe
from torch import Tensor

import visionpeft as vp
from visionpeft.backbones.pipelines import open_pipeline
from visionpeft.cli import main
from visionpeft.errors import AdapterFileError, OptionError, UnknownNameError, UserError
from visionpeft.export.exchange import write
from visionpeft.pipeline import run
from visionpeft.predict.drawings import KEY
from visionpeft.predict.sampler import AT_ONCE, Sampler

TARGETS = ["attn.qkv", "conv.3x3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, and three adapters for it: two of ours, and a file of diffusers."""
    folder = tmp_path_factory.mktemp("sampling")
    small_pipe("StableDiffusionPipeline").save_pretrained(folder / "base")
    for name, method in (("style", "lora"), ("subject", "cp_lora")):
        denoiser = adapted(open_pipeline(folder / "base").denoiser, method, TARGETS)
        vp.save(denoiser, folder / name)
        if name == "style":
            write("diffusers-lora", folder / "theirs.safetensors", denoiser, component="unet")
    return folder


def drawn(sampler: Sampler, prompt: str = "abc", seeds: tuple[int, ...] = (0, 1)) -> Tensor:
    return sampler.draw([prompt] * len(seeds), list(seeds), steps=2).int()


def test_adapters_are_mixed_and_switched_while_the_base_stays(made: Path):
    sampler = Sampler(made / "base")
    places = {name: p.data_ptr() for name, p in sampler.denoiser.named_parameters()}
    base = drawn(sampler)
    assert sampler.add(made / "style", strength=0.8) == "style"
    style = drawn(sampler)
    sampler.add(made / "subject", strength=0.5)
    both = drawn(sampler)
    sampler.use({"subject": 0.5})
    subject = drawn(sampler)
    pictures = [base, style, subject, both]
    assert all((a - b).abs().max() > 4 for i, a in enumerate(pictures) for b in pictures[:i])
    with sampler.base():
        assert torch.equal(drawn(sampler), base)
    sampler.use({"style": 0.8})
    assert torch.equal(drawn(sampler), style)
    assert sampler.mixture() == {"style": {"path": str(made / "style"), "strength": 0.8}}
    assert {name: p.data_ptr() for name, p in sampler.denoiser.named_parameters() if name in places} == places


def test_a_strength_scales_what_the_adapter_adds_to_the_weights(made: Path):
    sampler = Sampler(made / "base")
    sampler.add(made / "style", strength=0.5)
    wanted = drawn(sampler)
    half = open_pipeline(made / "base")
    vp.load(half.denoiser, made / "style")
    vp.activate(half.denoiser, {"default": 0.5})
    vp.merge(half.denoiser)
    found = half.family.sample(half.pipe, ["abc"] * 2, seeds=[0, 1], steps=2, size=SIZE).int()
    assert (found - wanted).abs().max() <= 1


def test_a_picture_depends_on_its_own_seed_alone(made: Path):
    sampler, told = Sampler(made / "base"), []
    seeds = list(range(AT_ONCE + 1))
    many = sampler.draw(["abc"] * len(seeds), seeds, steps=2, progress=lambda *done: told.append(done))
    assert many.shape == (len(seeds), 3, SIZE, SIZE)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (many[2:3].int() - drawn(sampler, seeds=(2,))).abs().max() <= 1  # batches round otherwise


def test_a_lora_file_of_diffusers_draws_as_ours(made: Path):
    ours, theirs = Sampler(made / "base"), Sampler(made / "base")
    ours.add(made / "style")
    assert theirs.add(made / "theirs.safetensors") == "theirs"
    assert (drawn(ours) - drawn(theirs)).abs().max() <= 1


def test_the_base_is_also_without_what_was_trained_beside_an_adapter(made: Path, tmp_path: Path):
    denoiser = open_pipeline(made / "base").denoiser
    vp.adapt(denoiser, "lora", ["attn.qkv"], train_also="conv_out")
    with torch.no_grad():
        denoiser.conv_out.weight.mul_(1.5)  # pyright: ignore[reportAttributeAccessIssue]
    vp.save(denoiser, tmp_path / "beside")
    sampler = Sampler(made / "base")
    base = drawn(sampler)
    sampler.add(tmp_path / "beside")
    changed = drawn(sampler)
    assert not torch.equal(changed, base)
    with sampler.base():
        assert torch.equal(drawn(sampler), base)
    assert torch.equal(drawn(sampler), changed)


def test_adding_an_adapter_again_sets_its_strength(made: Path):
    sampler = Sampler(made / "base")
    sampler.add(made / "style")
    assert sampler.add(made / "style", strength=0.25) == "style"
    assert sampler.add(made / "style", name="twin") == "twin"
    assert sampler.strengths == {"style": 0.25, "twin": 1.0}
    with pytest.raises(OptionError, match="'twin' is there already"):
        sampler.add(made / "subject", name="twin")


def test_what_does_not_fit_is_refused_with_a_reason(made: Path, tmp_path: Path):
    sampler = Sampler(made / "base")
    torch.save({}, tmp_path / "lora.bin")
    changed = open_pipeline(made / "base").denoiser
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    vp.save(adapted(changed, "lora", TARGETS), tmp_path / "other")
    for path, reason in (
        (tmp_path / "other", "was made on another base"),
        (tmp_path / "lora.bin", "is a pickle, which can run foreign code"),
        (tmp_path / "nothing", "there is no adapter file or folder"),
    ):
        with pytest.raises(AdapterFileError, match=reason):
            sampler.add(path)
    with pytest.raises(OptionError, match="1 prompts and 2 seeds"):
        sampler.draw(["abc"], [0, 1])
    with pytest.raises(UnknownNameError, match="unknown adapter 'stile'"):
        sampler.use({"stile": 1.0})
    with pytest.raises(OptionError, match="name the pipeline it was made for"):
        Sampler(made / "style")
    assert sampler.adapters == ()


@pytest.mark.parametrize(
    ("name", "prompt", "error", "message"),
    [
        ("StableDiffusionPipeline", [" "], OptionError, "there is no prompt"),
        ("DiTPipeline", ["dag"], UnknownNameError, "unknown class of this pipeline 'dag'.*'dog'"),
        ("DDPMPipeline", ["a"], OptionError, "takes no prompts"),
    ],
)
def test_prompts_are_checked_before_anything_is_drawn(name, prompt, error, message, tmp_path: Path):
    small_pipe(name).save_pretrained(tmp_path)
    sampler = Sampler(tmp_path)
    with pytest.raises(error, match=message):
        sampler.prompts(prompt)
    if name == "DDPMPipeline":
        assert sampler.draw(sampler.prompts([]), [3], steps=2).shape == (1, 3, SIZE, SIZE)


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``visionpeft sample words…``."""
    monkeypatch.setattr(sys, "argv", ["visionpeft", "sample", *map(str, words)])
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    printed = capsys.readouterr()
    assert isinstance(code, int)
    return code, printed.out, printed.err


def test_the_command_writes_pictures_that_say_how_they_were_drawn(made: Path, tmp_path: Path, capsys, monkeypatch):
    (tmp_path / "prompts.txt").write_text("abc\n\n" + "x" * (LENGTH + 3) + "\n")
    mixture = f"{made / 'style'}:0.8,weak={made / 'subject'}:0.5"
    words = [
        made / "base",
        "--prompts",
        tmp_path / "prompts.txt",
        "-a",
        mixture,
        "--steps",
        2,
        "--seed",
        5,
        "--count",
        2,
    ]
    code, out, err = call(capsys, monkeypatch, *words, "--grid", "-q", "-o", tmp_path / "out")
    assert code == 0, err
    paths = [Path(line) for line in out.splitlines()]
    assert [path.name for path in paths[:2]] == ["000-abc-seed5.png", "001-abc-seed6.png"]
    assert len(paths) == 5 and Image.open(paths[-1]).width > 2 * SIZE
    assert "prompts have more than" in err and "loses" in err and "UserWarning" not in err
    told = json.loads(Image.open(paths[1]).info[KEY])
    assert (told["prompt"], told["seed"], told["base"], told["steps"]) == ("abc", 6, str(made / "base"), 2)
    assert told["adapters"]["weak"] == {"path": str(made / "subject"), "strength": 0.5}
    sampler = Sampler(made / "base")
    for name, adapter in told["adapters"].items():
        sampler.add(adapter["path"], name, adapter["strength"])
    again = sampler.draw(["abc"], [6], steps=told["steps"], guidance=told["guidance"])[0]
    kept = torch.tensor(list(Image.open(paths[1]).tobytes())).reshape(SIZE, SIZE, 3).permute(2, 0, 1)
    assert (again.int() - kept).abs().max() <= 1


def test_the_command_says_what_is_wrong(made: Path, tmp_path: Path, capsys, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "picture.png").write_text("")
    for words, message in (
        (["-p", "abc", "-a", f"{made / 'style'}:strong"], "the strength is 'strong', but it must be a number"),
        (["-p", "abc", "-o", tmp_path / "full"], "exists already"),
        (["-p", "abc", "-o", tmp_path / "one.png", "--count", 2], "2 pictures need a folder"),
        (["-o", tmp_path / "new"], "there is no prompt"),
        (["--prompts", tmp_path / "none.txt"], "cannot be read"),
    ):
        code, _, err = call(capsys, monkeypatch, made / "base", *words)
        assert code == 2 and message in err, err
    code, _, err = call(capsys, monkeypatch, made / "base", "-p", "abc", "--entry", "lora", "-o", tmp_path / "new")
    assert code == 2 and "entries are what runs have" in err


def test_an_unfinished_run_is_named_as_such(tmp_path: Path):
    (tmp_path / "recipe.resolved.yaml").write_text("name: half\n")
    with pytest.raises(UserError, match="is an unfinished run: continue it with visionpeft run --resume"):
        Sampler(tmp_path)


@pytest.mark.slow
def test_a_run_opens_with_what_it_trained_and_serves_as_an_adapter(tmp_path: Path):
    whole = {"label": "all weights", "method": {"name": "full"}}
    result = run(recipe(tmp_path, compare=[whole]), output=tmp_path / "digits", progress=False)
    untouched = drawn(Sampler(tmp_path / "base"), "one")
    for entry in ("cp_lora", "all weights"):
        sampler = Sampler(result.folder, entry=entry)
        assert sampler.adapters == (("digits",) if entry == "cp_lora" else ())
        assert not torch.equal(drawn(sampler, "one"), untouched)
        with sampler.base():
            assert torch.equal(drawn(sampler, "one"), untouched)
    adapted_by_run = Sampler(tmp_path / "base")
    assert adapted_by_run.add(result.folder) == "digits"
    assert torch.equal(drawn(adapted_by_run, "one"), drawn(Sampler(result.folder), "one"))
    assert adapted_by_run.add(result.folder / "adapter", strength=0.5) == "digits"

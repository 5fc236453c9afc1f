"""Adapter folders and states that are damaged, foreign or cannot be written: refused in a sentence, model untouched."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from smallnets import adapted, net, refused

import visionpeft as vp
from visionpeft import errors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = adapted(train_also=["stem"])
    return vp.save(model, tmp_path / "adapter")


def edit(folder: Path, **entries: object) -> None:
    meta = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps(meta | entries))


def cut(folder: Path) -> None:
    content = (folder / "adapter.safetensors").read_bytes()
    (folder / "adapter.safetensors").write_bytes(content[:-7])


def flip(folder: Path) -> None:
    content = bytearray((folder / "modules.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "modules.safetensors").write_bytes(content)


def pickled(folder: Path) -> None:
    (folder / "adapter.json").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"A": 1}))


FOLDERS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing folder": (shutil.rmtree, ["is no adapter folder", "adapter.json"]),
    "missing json": (lambda f: (f / "adapter.json").unlink(), ["is no adapter folder"]),
    "missing factors": (lambda f: (f / "adapter.safetensors").unlink(), ["adapter.safetensors cannot be read"]),
    "missing modules": (lambda f: (f / "modules.safetensors").unlink(), ["modules.safetensors cannot be read"]),
    "truncated": (cut, ["adapter.safetensors was cut or changed", "sha256"]),
    "tampered": (flip, ["modules.safetensors was cut or changed", "sha256"]),
    "pickle": (pickled, ["adapter_model.bin is a pickle, which can run code"]),
    "json cut": (lambda f: (f / "adapter.json").write_text('{"format": 1,'), ["adapter.json is damaged"]),
    "json binary": (lambda f: (f / "adapter.json").write_bytes(b"\xff\xfe\x00"), ["adapter.json is damaged"]),
    "json list": (lambda f: (f / "adapter.json").write_text("[1]"), ["adapter.json is damaged"]),
    "json null": (lambda f: (f / "adapter.json").write_text("null"), ["adapter.json is damaged"]),
    "later format": (lambda f: edit(f, format=2), ["format is 2", "reads 1"]),
    "no checksums": (lambda f: edit(f, sha256=None), ["sha256 is None", "a table of checksums"]),
    "targets text": (lambda f: edit(f, targets="head"), ["targets is 'head'", "a list"]),
    "unknown method": (lambda f: edit(f, method="lorra"), ["adapter.json", "'lorra'", "'lora'"]),
    "unknown option": (lambda f: edit(f, options={"rnk": 1}), ["adapter.json", "'rnk'", "'rank'"]),
    "other rank": (lambda f: edit(f, options={"rank": 3}), ["adapter.safetensors", "'head.A' is (8, 24)", "(3, 24)"]),
    "fewer targets": (lambda f: edit(f, targets=["attn.qkv"]), ["adapter.safetensors", "missing 'attn.qkv.A'"]),
    "foreign target": (lambda f: edit(f, targets=["nose"]), ["'nose'", "matches no weight"]),
}


@pytest.mark.parametrize(("spoil", "parts"), FOLDERS.values(), ids=FOLDERS)
def test_folders(folder: Path, spoil: Callable[[Path], object], parts: list[str]):
    spoil(folder)
    model = net()
    with refused(model, errors.UserError, *parts):
        vp.load(model, folder)


def test_a_pickle_itself_is_not_opened(tmp_path: Path):
    (tmp_path / "adapter.pt").write_bytes(pickle.dumps({"A": 1}))
    model = net()
    with refused(model, errors.AdapterFileError, "looks like a pickle, which can run code"):
        vp.load(model, tmp_path / "adapter.pt")


def test_another_base(folder: Path):
    model = net()
    with torch.no_grad():
        model.head.weight.mul_(1.1)
    with refused(model, errors.AdapterFileError, "made on another base", "'head.weight' has other values"):
        vp.load(model, folder)
    wider = net(features=12)
    with refused(wider, errors.AdapterFileError, "made on another base"):
        vp.load(wider, folder)


def test_half_precision_of_the_same_base(folder: Path):
    vp.load(net().bfloat16(), folder)
    model = net().half()
    with refused(model, errors.AdapterFileError, "load the adapter first, then call half()"):
        vp.load(model, folder)


def test_an_adapter_made_with_other_options(folder: Path):
    model = adapted(rank=3)
    with refused(model, errors.AdapterFileError, "rank=8", "rank=3"):
        vp.load(model, folder)


STATES = {
    "missing": (lambda s: s.pop("head.A"), "missing 'head.A'"),
    "unexpected": (lambda s: s.update({"head.a": s["head.A"]}), "unexpected 'head.a' Did you mean 'head.A'"),
    "shape": (lambda s: s.update({"head.B": s["head.B"][:1]}), "'head.B' is (1, 8), but the model's is (2, 8)"),
    "NaN": (lambda s: s.update({"head.B": s["head.B"] * float("nan")}), "'head.B' has NaN"),
}


@pytest.mark.parametrize(("spoil", "part"), STATES.values(), ids=STATES)
def test_states(spoil: Callable[[dict], object], part: str):
    model = adapted()
    state = {key: t.clone() for key, t in vp.adapter_state_dict(model).items()}
    spoil(state)
    with refused(model, errors.AdapterFileError, part):
        vp.load_adapter_state_dict(model, state)


def test_factors_that_are_not_finite_are_not_saved(tmp_path: Path):
    model = adapted()
    with torch.no_grad():
        next(iter(vp.adapter_parameters(model).values())).fill_(float("inf"))
    with refused(model, errors.AdapterFileError, "NaN or infinite", "nothing was written"):
        vp.save(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("step", ["write_bytes", "fsync", "replace"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_full_disk_leaves_an_older_adapter_whole(folder: Path, monkeypatch, step: str, after: int):
    old = {file.name: file.read_bytes() for file in folder.iterdir()}
    model, left = adapted(train_also=["stem"], rank=5), [after]
    where = {"write_bytes": Path, "fsync": os, "replace": os}[step]
    real = getattr(where, step)

    def full(*args):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        return real(*args)

    monkeypatch.setattr(where, step, full)
    with refused(model, errors.UserError, "cannot write", "No space left on device"):
        vp.save(model, folder)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == old
    vp.load(net(), folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    model = adapted()
    with refused(model, errors.UserError, "cannot write", "Not a directory"):
        vp.save(model, tmp_path / "file" / "adapter")

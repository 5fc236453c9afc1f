"""Whatever is wrong with a call is said in one clear sentence, and the model stays as it was, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from smallnets import Net, adapted, net, refused
from torch import nn

import visionpeft as vp
from visionpeft import errors

OPTIONS = {
    "unknown method": ("lorra", {}, errors.UnknownNameError, ["'lorra'", "'lora'"]),
    "unknown inner method": ("dora(lorra)", {}, errors.UnknownNameError, ["'lorra'", "'lora'"]),
    "method that has no delta": ("dora(adaptertune)", {}, errors.OptionError, ["adaptertune", "not weight-additive"]),
    "unknown option": ("lora", {"rnk": 3}, errors.OptionError, ["'rnk'", "3", "'rank'"]),
    "rank 0": ("lora", {"rank": 0}, errors.OptionError, ["rank = 0", "a whole number ≥ 1"]),
    "rank True": ("lora", {"rank": True}, errors.OptionError, ["rank = True", "a whole number"]),
    "rank 4.0": ("lora", {"rank": 4.0}, errors.OptionError, ["rank = 4.0", "a whole number"]),
    "rank text": ("lora", {"rank": "4"}, errors.OptionError, ["rank = '4'", "a whole number"]),
    "alpha text": ("lora", {"alpha": "8"}, errors.OptionError, ["alpha = '8'", "number"]),
    "alpha NaN": ("lora", {"alpha": float("nan")}, errors.OptionError, ["alpha = nan", "finite number"]),
    "scaling": ("lora", {"scaling": "rank"}, errors.OptionError, ["scaling = 'rank'", "alpha/sqrt(rank)"]),
    "scaling list": ("lora", {"scaling": ["alpha"]}, errors.OptionError, ["scaling = ['alpha']"]),
    "dropout 1": ("lora", {"dropout": 1.0}, errors.OptionError, ["dropout = 1.0", "[0, 1)"]),
    "dropout text": ("lora", {"dropout": "a"}, errors.OptionError, ["dropout = 'a'", "number"]),
    "ranks number": ("flora", {"ranks": 5}, errors.OptionError, ["ranks = 5", "list"]),
    "ranks bool": ("flora", {"ranks": [4, True]}, errors.OptionError, ["ranks = [4, True]"]),
    "ranks short": ("flora", {"ranks": [4]}, errors.OptionError, ["ranks = (4,)", "two or more"]),
    "scale None": ("flora", {"scale": None}, errors.OptionError, ["scale = None", "number"]),
    "top 0": ("salt", {"top": 0}, errors.OptionError, ["top = 0", "≥ 1"]),
    "top 1.5": ("salt", {"top": 1.5}, errors.OptionError, ["top = 1.5", "(0, 1]"]),
    "top True": ("salt", {"top": True}, errors.OptionError, ["top = True"]),
    "rectify": ("salt", {"rectify": "relu"}, errors.OptionError, ["rectify = 'relu'", "diagonal"]),
    "tied text": ("block_lora", {"tied": "yes"}, errors.OptionError, ["tied = 'yes'", "true or false"]),
    "blocks": ("block_lora", {"rank": 4, "blocks": 3}, errors.OptionError, ["blocks = 3", "divisor of rank = 4"]),
    "wavelet near name": ("wara", {"wavelet": "db22x"}, errors.OptionError, ["'db22x'", "db22"]),
    "wavelet not orthogonal": ("wara", {"wavelet": "bior2.2"}, errors.OptionError, ["bior2.2", "orthogonal"]),
    "wavelet number": ("wara", {"wavelet": 3}, errors.OptionError, ["wavelet = 3", "a text"]),
    "subbands": ("wara", {"subbands": ["LL", "XX"]}, errors.OptionError, ["subbands = ('LL', 'XX')", "HH"]),
    "grid": ("wara_activation", {"grid": 4}, errors.OptionError, ["grid = 4", "list"]),
    "wara_tiny too large": ("wara_tiny", {"rank": 9}, errors.SiteError, ["rank = 9", "the 8 singular values"]),
    "salt top too large": ("salt", {"top": 9}, errors.SiteError, ["top = 9", "8 singular values", "a fraction fits"]),
    "blocks against channels": (
        "block_lora",
        {"share": "input", "blocks": 3, "rank": 3},
        errors.SiteError,
        ["blocks = 3", "does not divide", "8 input channels"],
    ),
}


@pytest.mark.parametrize(("method", "options", "error", "parts"), OPTIONS.values(), ids=OPTIONS)
def test_options(method: str, options: dict, error: type[Exception], parts: list[str]):
    model = net()
    with refused(model, error, *parts):
        vp.adapt(model, method, targets=["attn.qkv"], **options)


TARGETS = {
    "near name": (["attn.qvk"], ["'attn.qvk'", "'attn.qkv'"]),
    "near role": (["conv.3x"], ["'conv.3x'", "'conv.3x3'"]),
    "role of nothing": (["embedding"], ["'embedding'", "linear (3)"]),
    "container": (["attn"], ["'attn' is a container", "'attn.*' takes the 2 inside"]),
    "no such slice": (["attn.qkv[w]"], ["'attn.qkv[w]'", "it has k, q, v"]),
    "no slices": (["head[q]"], ["'head[q]'", "one weight", "leave the slices out"]),
    "regular expression": (["re:("], ["'re:('", "no regular expression"]),
    "number": ([3], ["found 3", "a target is a text"]),
    "empty": ([], ["targets is empty"]),
    "one of several": (["head", "nowhere"], ["'nowhere'", "matches no weight"]),
}


@pytest.mark.parametrize(("targets", "parts"), TARGETS.values(), ids=TARGETS)
def test_targets(targets: list, parts: list[str]):
    model = net()
    with refused(model, errors.TargetError, *parts):
        vp.adapt(model, "lora", targets=targets)


@pytest.mark.parametrize("name", ["", "a.b", "train", "parameters", "type", 3])
def test_adapter_names(name: object):
    model = net()
    with refused(model, errors.OptionError, repr(name), "without dots"):
        vp.adapt(model, "lora", ["head"], name=name)  # pyright: ignore[reportArgumentType]


def test_a_dead_target_is_an_error_with_an_example():
    model = net()
    with refused(model, errors.TargetError, "attn.unused", "neither called nor read"):
        vp.adapt(model, "lora", ["linear"], example=torch.randn(1, 3, 6, 6))


def test_an_example_that_does_not_run():
    model = net()
    with refused(model, errors.UserError, "does not run on the example"):
        vp.adapt(model, "lora", ["head"], example=torch.randn(1, 5, 6, 6))


def test_nothing_else_is_taken_for_a_plan_a_method_or_a_model():
    model = net()
    with refused(model, errors.OptionError, "plan = 'fast'", "factored"):
        vp.adapt(model, "lora", ["head"], plan="fast")
    with refused(model, errors.OptionError, "beside a method instance", "rank"):
        vp.adapt(model, vp.methods()["lora"](), ["head"], rank=3)
    with refused(model, errors.TargetError, "train_also", "'haed'", "'head'"):
        vp.adapt(model, "lora", ["stem"], train_also=["haed"])
    with pytest.raises(errors.UserError, match=r"must be an nn\.Module"):
        vp.adapt(None, "lora")  # pyright: ignore[reportArgumentType]


def test_a_target_that_has_the_adapter_already():
    model = net()
    vp.adapt(model, "lora", ["head"])
    with refused(model, errors.StateError, "'default'", "take another name"):
        vp.adapt(model, "cp_lora", ["stem"])


def quantized(model: Net) -> Net:
    model.head.weight = nn.Parameter(torch.zeros(2, 24, dtype=torch.int8), requires_grad=False)
    return model


def with_nan(model: Net) -> Net:
    with torch.no_grad():
        model.head.weight[1, 3] = float("nan")
    return model


def with_norm(model: Net) -> Net:
    nn.utils.parametrizations.weight_norm(model.head)
    return model


def pruned(model: Net) -> Net:
    from torch.nn.utils import prune

    prune.l1_unstructured(model.head, "weight", 0.5)
    return model


def recurrent(model: Net) -> Net:
    model.head = nn.LSTM(24, 2, batch_first=True)  # pyright: ignore[reportAttributeAccessIssue]
    return model


def lazy(model: Net) -> Net:
    model.head = nn.LazyLinear(2)
    return model


class Doubled(nn.Linear):
    @property
    def weight(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return 2 * self._parameters["weight"]

    @weight.setter
    def weight(self, value):
        self._parameters["weight"] = value


def computing(model: Net) -> Net:
    model.head.__class__ = Doubled
    return model


WEIGHTS = {
    "int8": (quantized, "head", errors.SiteError, "int8, not floating point"),
    "NaN": (with_nan, "head", errors.UserError, "'head' has NaN"),
    "weight_norm": (with_norm, "head", errors.SiteError, "computed from other parameters"),
    "pruned": (pruned, "head", errors.SiteError, "computed from other parameters"),
    "property": (computing, "head", errors.SiteError, "Doubled computes"),
    "LSTM": (recurrent, "head.*", errors.SiteError, "private list of their weights"),
}


@pytest.mark.parametrize(("spoil", "target", "error", "part"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_cannot_be_adapted(spoil: Callable, target: str, error: type[Exception], part: str):
    model = spoil(net())
    with refused(model, error, part):
        vp.adapt(model, "lora", [target])


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_lazy_layer_has_no_weight_yet():
    model = lazy(net())
    with pytest.raises(errors.StateError, match="head is lazy and has no weight yet: run the model once"):
        vp.adapt(model, "lora", ["stem"])


def test_a_compiled_model():
    model = net()
    compiled = torch.compile(model, backend="eager")
    with refused(model, errors.StateError, "compiled: adapt the model first"):
        vp.adapt(compiled, "lora", ["head"])  # pyright: ignore[reportArgumentType]
    model.head.compile(backend="eager")
    with refused(model, errors.StateError, "head is compiled: adapt the model first"):
        vp.adapt(model, "lora", ["head"])


def test_torchscript():
    scripted = torch.jit.trace(net(), torch.randn(1, 3, 6, 6))
    with pytest.raises(errors.StateError, match="is TorchScript: adapt the Python module"):
        vp.adapt(scripted, "lora", ["head"])  # pyright: ignore[reportArgumentType]


@pytest.fixture
def one_process(tmp_path: Path):
    """A gloo group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_wrapped_for_several_processes(one_process: None):
    from torch.distributed.fsdp import fully_shard

    model = net()
    with refused(model, errors.StateError, "DistributedDataParallel: adapt the model first"):
        vp.adapt(nn.parallel.DistributedDataParallel(model), "lora", ["head"])
    sharded = net()
    fully_shard(sharded.head)
    with pytest.raises(errors.StateError, match="head is sharded by FSDP: adapt the model first"):
        vp.adapt(sharded, "lora", ["head"])
    assert all(not key.startswith("adapters") for key in sharded.state_dict())


# --- calls out of order --------------------------------------------------------------------------------------------


def test_merging_out_of_order():
    model = adapted()
    with refused(model, errors.StateError, "nothing is merged"):
        vp.unmerge(model)
    vp.merge(model)
    with refused(model, errors.StateError, "'head' is merged already", "unmerge"):
        vp.merge(model)
    for call in (
        lambda: vp.activate(model, "default"),
        lambda: vp.load_adapter_state_dict(model, vp.adapter_state_dict(model)),
        lambda: vp.remove(model, "default"),
        lambda: vp.adapt(model, "lora", ["stem"], name="second"),
    ):
        with refused(model, errors.StateError, "merged", "unmerge"):
            call()
    plain = net()
    with refused(plain, errors.StateError, "no active adapter"):
        vp.merge(plain)


def test_what_cannot_be_merged_says_so():
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.GELU()))
    vp.adapt(model, "adaptertune", ["0"])
    with refused(model, errors.StateError, "adaptertune", "'0'", "cannot be merged"):
        vp.merge(model)


def test_merging_a_part_that_another_adapter_scales():
    model = adapted()
    vp.adapt(model, "dora", ["head"], name="gain")
    with refused(model, errors.StateError, "'gain' (dora)", "merged with them"):
        vp.merge(model, "default")
    vp.activate(model, "default")
    with refused(model, errors.StateError, "'gain' is not active"):
        vp.merge(model, "gain")
    vp.merge(model, "default")


@pytest.mark.parametrize("strength", [True, "0.5", float("nan"), None])
def test_strengths(strength: object):
    model = adapted()
    with refused(model, errors.UserError, repr(strength), "a finite number"):
        vp.activate(model, {"default": strength})  # pyright: ignore[reportArgumentType]


def test_adapters_that_are_not_there():
    model = adapted()
    for call in (
        lambda: vp.activate(model, "defualt"),
        lambda: vp.set_plan(model, "dense", "defualt"),
        lambda: vp.merge(model, "defualt"),
        lambda: vp.remove(model, "defualt"),
        lambda: vp.adapter_state_dict(model, "defualt"),
    ):
        with refused(model, errors.StateError, "'defualt'", "'default'"):
            call()

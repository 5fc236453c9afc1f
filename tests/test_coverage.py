"""Coverage of real networks: every weight is adapted, used and merged exactly; roles mean the same in all families."""

from __future__ import annotations

from math import prod

import pytest
import torch
from cases import distance
from networks import SMALL, on_meta, outputs, small
from torch import Tensor, nn

import visionpeft as vp
from visionpeft.errors import TargetError, VisionPEFTError
from visionpeft.surgery.roles import ROLES
from visionpeft.surgery.targets import resolve, resolve_blocks, weights_of

BIG = {"diffusers/UNet2DConditionModel", "open_clip/ViT-B-32", "monai/SwinUNETR"}
DEEP = {f"diffusers/{name}Transformer2DModel" for name in ("DiT", "PixArt", "SD3", "Flux")}  # hundreds of weights
IDLE = {"diffusers/SD3Transformer2DModel": ("transformer_blocks.1.attn.add_q_proj.",)}
"""Weights that are called for nothing: the last block asks for its text, whose answer no one reads."""
published = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in DEEP else []) for name in SMALL]
)
families = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in BIG else []) for name in SMALL]
)


def every_weight(model: nn.Module) -> list[str]:
    return [weight.path for weight in weights_of(model)]


@published
def test_every_weight_of_the_published_network_is_adapted(name: str):
    """100 % of the values in weights with two or more axes, each weight named by its exact path."""
    backbone = on_meta(name)
    matrices = {id(p): p.numel() for p in backbone.model.parameters() if p.dim() >= 2}
    targets = resolve(backbone.model, every_weight(backbone.model))
    hosts = {id(t.module._parameters[t.parameter]) for t in targets}
    assert hosts == set(matrices)
    assert sum(prod(t.site.shape) for t in targets) == sum(matrices.values())
    report = vp.adapt(backbone.model, "lora", [t.path for t in targets], example=backbone.example_input(), rank=2)
    assert (len(report.sites), report.refused, report.dead) == (len(targets), [], [])
    assert {site.path_chosen for site in report.sites} <= {"factored", "dense", "fused"}
    vp.merge(backbone.model)
    assert all(p.is_meta for p in backbone.model.parameters())


@families
def test_every_weight_acts_and_merges_exactly(name: str):
    """In evaluation, where fused paths read weights, and in training: merged ≡ unmerged, and no adapter is in vain."""
    model, example = small(name)
    assert vp.audit(model, example).dead == []
    report = vp.adapt(model, "lora", every_weight(model), example=example, rank=2, alpha=2)
    assert report.refused == []
    stirred(model)
    for training in (False, True):
        model.train(training)
        found = run(model, example)
        with vp.disable(model):
            base = run(model, example)
        vp.merge(model)
        merged = run(model, example)
        vp.unmerge(model)
        for y, folded, without in zip(found, merged, base, strict=True):
            effect = distance(y, without)
            assert effect > 1e-3 * without.square().mean().sqrt()
            assert distance(y, folded) <= 1e-5 * effect, f"training = {training}"
    idle = IDLE.get(name, ())
    assert [key for key in without_gradient(model.eval(), example) if not key.startswith(idle)] == []


def stirred(model: nn.Module) -> None:
    """Move the factors that start at zero, gently: a deep network amplifies every step."""
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in vp.adapter_parameters(model).values():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=stream))


def without_gradient(model: nn.Module, example) -> list[str]:
    """Factors that no output depends on."""
    loss = sum((y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum() for y in outputs(model, example))
    assert isinstance(loss, Tensor)
    loss.backward()
    return [key for key, p in vp.adapter_parameters(model).items() if p.grad is None or not p.grad.any()]


def run(model: nn.Module, example) -> list[Tensor]:
    """Outputs without gradients, with the same dropout every time."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        return outputs(model, example)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SMALL) - BIG - {"timm/efficientnet_b0", "monai/UNETR", "open_clip/RN50"}))
def test_every_method_adapts_what_it_can_by_default_or_says_why_not(name: str):
    model, example = small(name)
    before = model.state_dict().keys()
    for method in vp.methods():
        try:
            report = vp.adapt(model, method, example=example)
            assert all(torch.isfinite(y).all() for y in run(model.eval(), example)), method
        except VisionPEFTError as error:
            assert str(error).startswith(method)
        else:
            assert report.sites and all(reason for _, reason in report.refused), method
            assert report.trainable == sum(p.numel() for p in vp.adapter_parameters(model).values())
        if vp.adapter_parameters(model):
            vp.remove(model)
        assert model.state_dict().keys() == before, method


# Counts follow from the depth of each network: blocks, one attention and one MLP a block, and so on. qv: attn.qkv[q,v].
NAMED = ("attn.qkv", "qv", "attn.out", "mlp.up", "mlp.down", "block", "patch_embed", "head")
ROLE_COUNTS = {
    "timm/vit_tiny_patch16_224": (12, 24, 12, 12, 12, 12, 1, 1),
    "timm/swin_tiny_patch4_window7_224": (12, 24, 12, 12, 12, 2 + 2 + 6 + 2, 1, 1),
    "timm/resnet18": (0, 0, 0, 0, 0, 4 * 2, 0, 1),
    "timm/convnext_atto": (0, 0, 0, 12, 12, 2 + 2 + 6 + 2, 1, 1),
    "timm/efficientnet_b0": (0, 0, 0, 0, 0, 1 + 2 + 2 + 3 + 3 + 4 + 1, 0, 1),
    "open_clip/ViT-B-32": (2 * 12 * 3, 2 * 24, 2 * 12, 2 * 12, 2 * 12, 2 * 12, 1, 0),
    "open_clip/RN50": (12 * 3 + 3, 24 + 2, 12 + 1, 12, 12, 12 + 3 + 4 + 6 + 3, 0, 0),
    "monai/UNet": (0, 0, 0, 0, 0, 5 + 4, 0, 2),
    "monai/UNETR": (12, 24, 12, 12, 12, 12 + 1 + 3 + 4, 1, 1),
    "monai/SwinUNETR": (8, 16, 8, 8, 8, 8 + 5 + 5, 1, 1),
    "monai/SegResNet": (0, 0, 0, 0, 0, 1 + 2 + 2 + 4 + 3, 0, 1),
    "monai/DynUNet": (0, 0, 0, 0, 0, 5 + 4, 0, 1),
    "diffusers/UNet2DConditionModel": (2 * 16 * 3, 2 * 16 * 2, 2 * 16, 16, 16, 16 + 8 + 2 + 12, 0, 1),
    "diffusers/UNet2DModel": (16 * 3, 16 * 2, 16, 0, 0, 8 + 2 + 12, 0, 1),
    "diffusers/AutoencoderKL": (2 * 3, 2 * 2, 2, 0, 0, 8 + 2 + 2 + 12, 0, 1),
    "diffusers/DiTTransformer2DModel": (28 * 3, 28 * 2, 28, 28, 28, 28, 1, 1),
    "diffusers/PixArtTransformer2DModel": (2 * 28 * 3, 2 * 28 * 2, 2 * 28, 28, 28, 28, 1, 1),
    # The last block has no use for the text after its attention.
    "diffusers/SD3Transformer2DModel": (2 * 24 * 3, 2 * 24 * 2, 24 + 23, 24 + 23, 24 + 23, 24, 1, 1),
    "diffusers/FluxTransformer2DModel": (
        (2 * 19 + 38) * 3,
        (2 * 19 + 38) * 2,
        2 * 19,
        2 * 19 + 38,
        2 * 19 + 38,
        57,
        1,
        1,
    ),
}
KERNELS = ("conv.1x1", "conv.3x3", "conv.depthwise")
CONV_COUNTS = {
    "timm/vit_tiny_patch16_224": (0, 0, 0),
    "timm/resnet18": (3, 16, 0),
    "timm/convnext_atto": (2 * 12, 0, 12),
    "timm/efficientnet_b0": (2 * 16 + 15 + 16 + 1, 1 + 7, 16),
    "open_clip/RN50": (2 * 16 + 4, 3 + 16, 0),
    "monai/SegResNet": (1 + 3, 1 + 2 * 12 + 3, 0),
}


def count(model: nn.Module, role: str) -> int:
    """Sites of a role; an empty one must be refused by its name."""
    pattern = "attn.qkv[q,v]" if role == "qv" else role
    try:
        return len(resolve_blocks(model, [role]) if role == "block" else resolve(model, [pattern]))
    except TargetError as error:
        assert f"'{pattern}'" in str(error)
        return 0


@published
def test_roles_mean_the_same_in_every_family(name: str):
    model = on_meta(name).model
    assert {role: count(model, role) for role in NAMED} == dict(zip(NAMED, ROLE_COUNTS[name], strict=True))
    if name in CONV_COUNTS:
        assert tuple(count(model, role) for role in KERNELS) == CONV_COUNTS[name]


@published
def test_blocks_do_not_overlap_and_keep_their_width(name: str):
    """A block adapter is made for the width of what its block puts out."""
    model, example = small(name)
    blocks = resolve_blocks(model, ["block"])
    paths = [path for path, _ in blocks]
    assert not [(a, b) for a in paths for b in paths if b.startswith(a + ".")]
    vp.adapt(model, "adaptertune", rank=2)
    stirred(model)
    assert without_gradient(model.eval(), example) == []


def test_an_empty_role_names_those_that_exist():
    model = on_meta("timm/resnet18").model
    with pytest.raises(
        TargetError, match=r"'attn\.qkv\[q,v\]' is the role of no weight .*conv\.3x3 \(16\).*head \(1\)"
    ):
        vp.adapt(model, "lora", ["attn.qkv[q,v]"])
    with pytest.raises(TargetError, match=r"'block' names modules, not weights\. The roles here: linear \(1\)"):
        vp.adapt(model, "lora", ["block"])


def test_a_slice_that_no_matched_weight_has_is_an_error():
    model = on_meta("timm/vit_tiny_patch16_224").model
    with pytest.raises(TargetError, match=r"asks for slices of 'blocks\.0\.attn\.qkv', but it has k, q, v"):
        vp.adapt(model, "lora", ["attn.qkv[q,x]"])
    with pytest.raises(TargetError, match=r"'blocks\.0\.attn\.proj', but it is one weight"):
        vp.adapt(model, "lora", ["attn.proj[q]"])


def test_a_family_may_pack_keys_and_values_apart_from_queries():
    """PVT keeps q and kv: the same role with the same slices takes rows of both."""
    from timm import create_model

    with torch.device("meta"):
        model = create_model("pvt_v2_b0")
    paths = [target.path for target in resolve(model, ["attn.qkv[q,v]"])]
    assert paths[:2] == ["stages.0.blocks.0.attn.q", "stages.0.blocks.0.attn.kv[v]"]


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_found_somewhere(role: str):
    networks = ("open_clip/ViT-B-32", "timm/efficientnet_b0")
    assert any(count(on_meta(name).model, role) for name in networks)

"""Layers of torch that compute by way of the functions of this folder."""

from __future__ import annotations

from torch import Tensor, nn

from visionpeft.kernels.recompute.activations import leaky_relu, relu, silu
from visionpeft.kernels.recompute.norms import group_norm, instance_norm
from visionpeft.kernels.recompute.prelu import prelu


def attach(model: nn.Module) -> int:
    """Let every plain norm and activation of the model that is known here recompute, in place; how many those are.

    State-dict keys, ``isinstance`` and values stay as they are. :func:`detach` undoes it.
    """
    return _change_class(model, {own.__bases__[-1]: own for own in _OWN})


def detach(model: nn.Module) -> int:
    """Undo :func:`attach`; the number of layers changed."""
    return _change_class(model, {own: own.__bases__[-1] for own in _OWN})


def _change_class(model: nn.Module, new: dict[type, type]) -> int:
    found = [module for module in model.modules() if type(module) in new]
    for module in found:
        module.__class__ = new[type(module)]
    return len(found)


class RecomputingPReLU(nn.PReLU):
    """``nn.PReLU`` by way of :func:`prelu`."""

    def forward(self, input: Tensor) -> Tensor:
        return prelu(input, self.weight)


class RecomputingReLU(nn.ReLU):
    """``nn.ReLU`` by way of :func:`relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return relu(input, self.inplace)


class RecomputingLeakyReLU(nn.LeakyReLU):
    """``nn.LeakyReLU`` by way of :func:`leaky_relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return leaky_relu(input, self.negative_slope, self.inplace)


class RecomputingSiLU(nn.SiLU):
    """``nn.SiLU`` by way of :func:`silu`."""

    def forward(self, input: Tensor) -> Tensor:
        return silu(input, self.inplace)


class RecomputingGroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` by way of :func:`group_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class _ByInstance(nn.modules.instancenorm._InstanceNorm):
    """What the three below have in common: statistics of the input, by way of :func:`instance_norm`."""

    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        if self.running_mean is not None:
            return super()._apply_instance_norm(input)
        return instance_norm(input, self.weight, self.bias, self.eps)


class RecomputingInstanceNorm1d(_ByInstance, nn.InstanceNorm1d):
    """``nn.InstanceNorm1d`` by way of :func:`instance_norm`."""


class RecomputingInstanceNorm2d(_ByInstance, nn.InstanceNorm2d):
    """``nn.InstanceNorm2d`` by way of :func:`instance_norm`."""


class RecomputingInstanceNorm3d(_ByInstance, nn.InstanceNorm3d):
    """``nn.InstanceNorm3d`` by way of :func:`instance_norm`."""


_OWN = (
    RecomputingPReLU,
    RecomputingReLU,
    RecomputingLeakyReLU,
    RecomputingSiLU,
    RecomputingGroupNorm,
    RecomputingInstanceNorm1d,
    RecomputingInstanceNorm2d,
    RecomputingInstanceNorm3d,
)

"""Which attention a denoiser runs: xformers where its operator runs on CUDA, PyTorch's own everywhere else.

On a CPU nothing beats PyTorch's fused attention (torch 2.14, one thread: products of two matrices take 0.9 to 1.5 times
as long in training); what pays there are wide heads: 256 tokens of 128 channels take a fifth with 64 channels a head of
what they take with 8.
"""

from __future__ import annotations

from diffusers.models.attention_processor import Attention, AttnProcessor2_0, XFormersAttnProcessor
from torch import Tensor, nn

from visionpeft.backbones.cuda_attention import attention_backend, why_no_xformers


class XFormersOnCuda:
    """An attention processor of diffusers for models that training moves: xformers on CUDA, PyTorch's elsewhere."""

    def __init__(self):
        self.on_cuda, self.elsewhere = XFormersAttnProcessor(), AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        chosen = self.on_cuda if hidden_states.is_cuda else self.elsewhere
        return chosen(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def choose_attention(model: nn.Module) -> str:
    """Give every plain attention of ``model`` to xformers if it runs here; returns what is chosen, and why.

    Attention of other kinds (the joint one of Stable Diffusion 3 and Flux, processors set by hand) stays as it is.
    """
    if why_no_xformers() is None:
        for module in model.modules():
            if isinstance(module, Attention) and type(module.processor) is AttnProcessor2_0:
                module.set_processor(XFormersOnCuda())  # pyright: ignore[reportArgumentType]
    return f"attention: {attention_backend()}"

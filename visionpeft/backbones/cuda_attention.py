"""Whether xformers serves attention here; asked by ``doctor`` and by the diffusion pipelines."""

from __future__ import annotations

from functools import cache
from importlib import metadata

SDPA = "PyTorch scaled_dot_product_attention"


def attention_backend() -> str:
    """Which attention runs here, and why: xformers on CUDA where its operator runs, else PyTorch's own."""
    why = why_no_xformers()
    return f"xformers {metadata.version('xformers')}" if why is None else f"{SDPA} ({why})"


@cache
def why_no_xformers() -> str | None:
    """The reason why xformers is not used, or None where its operator runs on the CUDA device, there and back."""
    import torch

    if not torch.cuda.is_available():
        return "xformers serves CUDA only, and there is no CUDA device"
    try:
        from xformers.ops import memory_efficient_attention  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "xformers":
            return f"xformers does not load: {error}"
        return "xformers is not installed: pip install 'visionpeft[cuda]'"
    except (ImportError, OSError, RuntimeError) as error:
        return f"xformers does not load: {error}"
    try:
        probe = torch.zeros(1, 8, 1, 32, device="cuda", requires_grad=True)
        memory_efficient_attention(probe, probe, probe).sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        return f"xformers has no operator for this device: {str(error).strip().splitlines()[0]}"
    return None

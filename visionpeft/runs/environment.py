"""What a run ran on: versions, processor, threads, devices. Kept with the figures and shown by ``doctor``."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = (
    *("visionpeft", "torch", "torchvision", "timm", "open_clip_torch", "monai", "diffusers", "lightning"),
    *("torchmetrics", "safetensors", "pydantic", "PyWavelets", "numpy"),
)


def environment() -> dict[str, str]:
    """Name → value, all text."""
    import torch

    found = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "device": device_name(),
    }
    return {**found, **versions()}


def versions() -> dict[str, str]:
    """Installed version of every library that can change a figure."""
    return {name: version for name in PACKAGES if (version := installed(name))}


def installed(package: str) -> str | None:
    """The version of a package, or None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def device_name() -> str:
    """The accelerator torch would choose, or ``cpu``."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "mps" if torch.backends.mps.is_available() else "cpu"

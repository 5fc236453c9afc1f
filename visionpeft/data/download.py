"""Downloading by URL with a progress bar."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from visionpeft.errors import DataError

CHUNK = 1 << 18
TIMEOUT = 30.0  # seconds without a byte


def download(url: str, target: Path) -> None:
    """Fetch ``url`` (http or https) into the file ``target``.

    Raises:
        DataError: the server cannot be reached, refuses, or sends fewer bytes than announced.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError(f"only http and https addresses are fetched, not {url!r}")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            announced = int(answer.headers.get("Content-Length") or 0)
            received = _copy(answer, target, announced)
    except urllib.error.HTTPError as error:
        raise DataError(f"cannot fetch {url}: the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"cannot fetch {url}: {getattr(error, 'reason', None) or error}") from error
    if announced and received != announced:
        raise DataError(f"{url} broke off after {received:,} of {announced:,} bytes")


def _copy(answer: http.client.HTTPResponse, target: Path, size: int) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    received = 0
    with Progress(*columns, console=Console(stderr=True)) as progress, open(target, "wb") as file:
        task = progress.add_task(target.name, total=size or None)
        while block := answer.read(CHUNK):
            received += file.write(block)
            progress.update(task, completed=received)
    return received

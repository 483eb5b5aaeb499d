"""Pictures side by side, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from latentiqa.data.distortions import to_bytes
from latentiqa.files import write_atomic


def save_grid(path: Path, rows: Sequence[Tensor], gap: int = 2) -> None:
    """Write rows of pictures as one PNG, atomically.

    Args:
        path: the file.
        rows: each ``(N, 3, H, W)``, all of one shape; clipped to [0, 1].
        gap: white pixels between pictures.
    """
    _, _, height, width = rows[0].shape
    columns = max(len(row) for row in rows)
    canvas = torch.ones(3, len(rows) * (height + gap) - gap, columns * (width + gap) - gap)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row.float().cpu()):
            top, left = i * (height + gap), j * (width + gap)
            canvas[:, top : top + height, left : left + width] = picture
    buffer = io.BytesIO()
    Image.fromarray(to_bytes(canvas.permute(1, 2, 0).numpy())).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())

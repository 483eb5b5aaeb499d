"""A student as a file that runs elsewhere: ONNX, or a program of torch.export.

What is done to a picture before the network is part of the graph: pictures of any size go in.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentiqa.data.views import Square, Views
from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.student.network import Student

TOLERANCE = 1e-4
"""How far an exported score may be from that of the model; scores lie in [0, 1]."""

LARGEST = 16384
"""Largest side of a picture, in pixels."""

MOST = 1024
"""Most pictures of a batch."""

OPSET = 18
"""Of ONNX: the first with a resize that has antialiasing."""

SHAPES = ((1, 48, 64), (2, 200, 133), (1, 512, 512), (3, 90, 700))
"""Batch, height and width of the pictures that an export is checked with."""


class Deployed(nn.Module):
    """Resizing and a student in one: pictures of any size to scores.

    Args:
        student: trained; it is frozen.
        views: what it sees of a picture.

    Raises:
        ConfigError: the views are not the one that is part of a graph.

    Example:
        >>> from latentiqa.student.network import Design
        >>> from latentiqa.student.trunks import LiteTrunk
        >>> deployed = Deployed(Student(Design(LiteTrunk())), Square(64))
        >>> deployed(torch.rand(2, 3, 50, 90)).shape
        torch.Size([2])
    """

    def __init__(self, student: Student, views: Views) -> None:
        super().__init__()
        if not isinstance(views, Square):
            raise ConfigError(
                f"views={type(views).__name__}: expected a student that was distilled with "
                "views=square; the others' sizes depend on the picture in Python."
            )
        self.student = student.requires_grad_(False).eval()
        self.size = views.size

    def forward(self, image: Tensor) -> Tensor:
        """Scores ``(B,)`` of pictures ``(B, 3, H, W)`` in [0, 1], as `latentiqa.metric.Metric`."""
        size = (self.size, self.size)
        seen = F.interpolate(image, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.student(seen)


def export_program(deployed: Deployed, path: Path) -> None:
    """Write a program of torch.export (``.pt2``), and check it.

    Raises:
        LatentiqaError: it does not compute what the model computes.
    """
    program = _program(deployed)
    with _quiet():
        torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    _check(deployed, lambda image: loaded(image), path)


def export_onnx(deployed: Deployed, path: Path) -> None:
    """Write ONNX, whose input is ``image`` and output ``score``, and check it in ONNX Runtime.

    Raises:
        ConfigError: ONNX is not installed.
        LatentiqaError: it does not compute what the model computes.
    """
    _need_onnx()
    with _quiet():
        written = torch.onnx.export(
            _program(deployed),
            input_names=["image"],
            output_names=["score"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert written is not None
    written.save(path, external_data=False)
    _check(deployed, scorer_of(path), path)


def quantise(source: Path, path: Path, pictures: Iterable[Tensor]) -> None:
    """Write an ONNX file whose convolutions and shortcuts compute on 8-bit integers.

    Maps are unsigned and filters signed, which processors have instructions for. A clip goes with
    its convolution: what is rounded are maps in [0, 6], not the wider range before it.

    Args:
        source: what `export_onnx` wrote.
        path: of the new file.
        pictures: ``(3, H, W)`` in [0, 1], that show which range each map has.

    Raises:
        ConfigError: ONNX is not installed.
    """
    _need_onnx()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(pictures)

        def get_next(self) -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            picture = next(self.left, None)
            return None if picture is None else {"image": picture[None].numpy()}

    with _quiet():
        quantize_static(
            source,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Clip", "Add"],
            activation_type=QuantType.QUInt8,
            per_channel=True,
        )


def scorer_of(path: Path, threads: int | None = None) -> Any:
    """What scores pictures ``(B, 3, H, W)`` by an ONNX file, ``(B,)``.

    Args:
        path: of the file.
        threads: of ONNX Runtime; None for PyTorch's number.

    Raises:
        ConfigError: ONNX Runtime is not installed.
    """
    _need_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _program(deployed: Deployed) -> Any:
    limits = {"batch": (1, MOST), "height": (1, LARGEST), "width": (1, LARGEST)}
    batch, height, width = (
        torch.export.Dim(name, min=least, max=most) for name, (least, most) in limits.items()
    )
    # Not the network's own size, nor one that a resize leaves as it is.
    example = torch.full((2, 3, deployed.size + 21, deployed.size + 34), 0.5)
    with torch.no_grad():
        # What is computed on first use and kept, a mixture of channels, must hold real numbers.
        deployed.eval()(example)
    with _quiet():
        return torch.export.export(
            deployed, (example,), dynamic_shapes=({0: batch, 2: height, 3: width},)
        )


@torch.no_grad()
def _check(deployed: Deployed, scores_of: Any, path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in SHAPES:
        # From flat to noisy, so that scores differ.
        grain = torch.linspace(0, 1, batch + 1)[1:].view(-1, 1, 1, 1)
        image = grain * torch.rand(batch, 3, height, width, generator=generator)
        far = (scores_of(image) - deployed(image)).abs().max().item()
        if not far <= TOLERANCE:
            path.unlink()
            raise LatentiqaError(
                f"{path}: its scores are up to {far:.2g} from the model's on {batch} pictures of "
                f"{height} x {width}, more than {TOLERANCE}; it has been removed. Please report "
                "this with your versions of torch and onnxruntime."
            )


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"ONNX needs {error.name}: pip install 'latentiqa[onnx]'.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' advice."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

"""latentiqa export: a finished student as a file that runs without this package.

Usage: latentiqa export run=FOLDER [output=FILE.onnx|FILE.pt2] [key=value ...]

Pictures (B, 3, H, W) in [0, 1] go in, of any size; scores (B,) come out: resizing and value range
are part of the graph. The file is kept only if its scores are the model's to 1e-4. int8=true writes
8-bit convolutions (ONNX alone) and tells what they cost on pictures= that did not calibrate them;
this is also written beside the file. The last line printed is the path of the file.

  latentiqa export output=student.onnx                    # the student inside the package
  latentiqa export run=runs/student-0123456789ab output=student.pt2
  latentiqa export run=runs/student-0123456789ab output=small.onnx int8=true pictures=photos/
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig

from latentiqa.commands.launch import Done
from latentiqa.commands.parts import quieten
from latentiqa.commands.trained import find_run, load_run
from latentiqa.errors import ConfigError, DataError, LatentiqaError, check_integer
from latentiqa.runs import write_json

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FEWEST = 6
"""Pictures for int8: three calibrate, and a rank correlation takes three."""


def run(config: DictConfig) -> Done:
    """Export one run; see the module's docstring."""
    output = Path(config.output)
    if output.suffix not in {".onnx", ".pt2"}:
        raise ConfigError(f"output={output}: expected a name ending in .onnx or .pt2.")
    if config.int8 and output.suffix != ".onnx":
        raise ConfigError(f"int8=true with output={output}: expected a name ending in .onnx.")
    check_integer("data.max_pixels", config.data.max_pixels, 1)
    pictures = _pictures(config) if config.int8 else []
    finished = find_run(config.run, config.paths.runs)
    if finished.results["config"]["method"]["name"] != "student":
        raise ConfigError(
            f"run={finished.folder}: {finished.method} is no student; distil one from it first: "
            f"latentiqa distill teacher={finished.folder}"
        )

    from latentiqa.methods.rated import Rated
    from latentiqa.student.deploy import Deployed, export_onnx, export_program
    from latentiqa.student.network import Student

    quieten()
    loaded = load_run(finished)
    scores = loaded.extractors[0]
    assert isinstance(scores, Rated)
    assert isinstance(scores.rater, Student)
    deployed = Deployed(scores.rater, loaded.views)
    output.parent.mkdir(parents=True, exist_ok=True)
    if config.int8:
        _export_int8(deployed, output, pictures, config.data.max_pixels)
    elif output.suffix == ".onnx":
        export_onnx(deployed, output)
    else:
        export_program(deployed, output)
    log.info("%.1f MB", output.stat().st_size / 1e6)
    print(output)
    return Done()


def _pictures(config: DictConfig) -> list[Path]:
    """The files that calibrate and measure.

    Raises:
        ConfigError: there are not enough.
    """
    from latentiqa.data.folders import find_pictures

    given = config.pictures
    inputs = list(given) if isinstance(given, ListConfig) else [given]
    paths = find_pictures(inputs) if given is not None else []
    if len(paths) < FEWEST:
        raise ConfigError(
            f"int8=true with {len(paths)} pictures: expected at least {FEWEST}, better hundreds; "
            "set pictures= to a folder of photos of the kind that is going to be scored."
        )
    return paths


def _export_int8(deployed: Any, output: Path, paths: Sequence[Path], max_pixels: int) -> None:
    from latentiqa.data.images import read_image
    from latentiqa.student.deploy import export_onnx, quantise, scorer_of

    def read(chosen: Sequence[Path]) -> Iterator[Tensor]:
        return (read_image(path, max_pixels) for path in chosen)

    calibrating, measuring = paths[::2], paths[1::2]
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "float32.onnx"
        export_onnx(deployed, whole)
        quantise(whole, output, read(calibrating))
        try:
            loss = loss_between(scorer_of(whole), scorer_of(output), read(measuring))
        except LatentiqaError:
            output.unlink()
            raise
    loss["calibrated_on"] = len(calibrating)
    write_json(output.with_suffix(".json"), loss)
    log.info(
        "int8 on %d other pictures: SRCC with float32 %.4f, largest difference %.4f, mean %.4f",
        *(loss["n"], loss["srcc"], loss["largest_difference"], loss["mean_difference"]),
    )


def loss_between(
    exact: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], pictures: Iterable[Tensor]
) -> dict[str, Any]:
    """How far scores of one model are from those of another.

    Args:
        exact: pictures ``(B, 3, H, W)`` to scores ``(B,)``.
        other: the same, not as exact.
        pictures: ``(3, H, W)`` each; one at a time is in memory.

    Raises:
        DataError: one of them says the same of all pictures.
    """
    import torch

    from latentiqa.metrics import srcc

    both = [torch.cat([exact(one[None]), other(one[None])]) for one in pictures]
    a, b = torch.stack(both, dim=1)
    agreement = srcc(a, b)
    if agreement != agreement:
        raise DataError("the scores of all pictures are the same: int8 cannot be measured on them.")
    far = (a - b).abs()
    return {
        "n": len(a),
        "srcc": agreement,
        "largest_difference": far.max().item(),
        "mean_difference": far.mean().item(),
    }

"""Scores from Python: `score` for pictures, `Metric` for tensors, as a loss or a prior if wanted.

Both take a scorer inside the package, ``student`` or ``lgdm``, or any finished run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from latentiqa.data.folders import find_pictures
from latentiqa.data.images import MAX_PIXELS, from_pillow, inspect_images, read_image
from latentiqa.data.manifest import Record
from latentiqa.data.views import Views, alike
from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.methods.scorer import Scorer

UNNAMED = "picture"
"""Seeds the noise of pictures without a name: equal pictures have equal scores."""

ROUNDING = 1e-3
"""How far beyond [0, 1] arithmetic may have carried a picture; it is clipped."""

Picture = str | Path | Image.Image | NDArray[Any] | Tensor
"""A file, or pixels: (H, W, 3) uint8 or in [0, 1] as an array, (3, H, W) in [0, 1] as a tensor."""

EXPECTED = (
    "expected files, images of Pillow, arrays (H, W, 3) of uint8 or in [0, 1], or tensors "
    "(3, H, W) in [0, 1]"
)


class Metric(nn.Module):
    """No-reference quality of pictures, higher is better.

    All weights are frozen. Inside a region of autocast it computes as outside.

    Args:
        scorer: feature extractors and their head.
        views: of each picture; its score is the mean of theirs.
        differentiable: let the scores have a gradient with respect to the pictures; otherwise
            nothing is kept for a backward pass.
        method: what scores, in words.
        trained_on: what the head was trained on, in words.
        srcc: SRCC on the test part of what it was trained on.

    Attributes:
        higher_is_better: True.

    Raises:
        ConfigError: ``differentiable`` with an extractor that is guided.

    Example:
        >>> from latentiqa.data.views import Square
        >>> from latentiqa.heads import RidgeHead
        >>> from latentiqa.methods.psi import PsiFeatures
        >>> from latentiqa.perceptual.nss import NSS
        >>> nss, head, x = PsiFeatures("nss", NSS()), RidgeHead(), torch.rand(8, 40)
        >>> _ = head.fit(x, x[:, 0], x, x[:, 0])
        >>> metric = Metric(Scorer([nss], head), Square(32), differentiable=True)
        >>> image = torch.rand(2, 3, 48, 64, requires_grad=True)
        >>> metric(image).sum().backward()
        >>> image.grad.shape
        torch.Size([2, 3, 48, 64])
    """

    higher_is_better = True

    def __init__(
        self,
        scorer: Scorer,
        views: Views,
        *,
        differentiable: bool = False,
        method: str | None = None,
        trained_on: str = "unknown pictures",
        srcc: float | None = None,
    ) -> None:
        super().__init__()
        names = [extractor.name for extractor in scorer.extractors]
        fixed = [e.name for e in scorer.extractors if not e.differentiable]
        if differentiable and fixed:
            raise ConfigError(
                f"differentiable=True: {', '.join(fixed)} is guided; its corrections are gradients "
                "themselves, and second derivatives are not offered. Use a run that was trained "
                "with guidance=none, or differentiable=False."
            )
        self.scorer = scorer
        self.views = views
        self.differentiable = differentiable
        self.method = method or f"{' + '.join(names)}, {type(scorer.head).__name__}"
        self.trained_on = trained_on
        self.srcc = srcc
        self.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where it computes; pictures are brought there."""
        # A head that computes nothing has no tensors.
        return next(chain(self.scorer.buffers(), self.scorer.parameters())).device

    def forward(self, image: Tensor, names: Sequence[str] | None = None) -> Tensor:
        """Scores of pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1], of any size and floating dtype.
            names: file names of the pictures: they seed LGDM's noise, and the places of random
                crops, as for ``latentiqa score``. Without them a score depends on the picture
                alone.

        Returns:
            ``(B,)`` float32, higher is better.

        Raises:
            ConfigError: `image` or `names` are not of that kind.
            LatentiqaError: a feature is not finite.
        """
        _check(image)
        if isinstance(names, str):
            raise ConfigError(f"names={names!r}: expected a list of names, one a picture.")
        names = [UNNAMED] * len(image) if names is None else names
        if len(names) != len(image):
            raise ConfigError(f"{len(image)} images but {len(names)} names: expected one each.")
        pictures = list(zip(names, image.to(self.device, torch.float32), strict=True))
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            return self._scores(pictures, len(image) * self.views.number)

    @torch.no_grad()
    def each(self, pictures: Iterable[tuple[str, Tensor]], batch_size: int = 4) -> Iterator[float]:
        """Scores of pictures of different sizes, one after the other.

        Args:
            pictures: name and ``(3, H, W)`` in [0, 1]; a batch is drawn when it is needed.
            batch_size: views computed together.
        """
        pictures = iter(pictures)
        while batch := list(islice(pictures, max(1, batch_size // self.views.number))):
            yield from self._scores(batch, batch_size).tolist()

    def _scores(self, pictures: Sequence[tuple[str, Tensor]], batch_size: int) -> Tensor:
        """Scores (B,) of B pictures with their names, from at most so many views at a time."""
        names = (view for name, _ in pictures for view in self.views.names(name))
        views = (view for name, picture in pictures for view in self.views(picture, name))
        with torch.autocast(self.device.type, enabled=False):
            features = [
                self.scorer.features(
                    torch.stack(batch).to(self.device), list(islice(names, len(batch)))
                )
                for batch in alike(views, batch_size)
            ]
            x = torch.cat(features).unflatten(0, (len(pictures), self.views.number))
            return self.scorer.head.predict(x)

    def __repr__(self) -> str:
        """What it is, in one line."""
        srcc = "unknown" if self.srcc is None else f"{self.srcc:.3f}"
        said = [self.method, f"trained on {self.trained_on}", f"test SRCC {srcc}"]
        said += ["higher is better", *(["differentiable"] if self.differentiable else [])]
        return f"{type(self).__name__}({'; '.join(said)})"


def load_metric(
    run: str | Path | None = None,
    device: str | torch.device = "cpu",
    differentiable: bool = False,
) -> Metric:
    """The scorer of a finished training run as a frozen module.

    Args:
        run: folder of the run, or ``student`` or ``lgdm``, which are inside the package; None for
            the student.
        device: where it computes.
        differentiable: see `Metric`.

    Raises:
        ConfigError: there is no such run or device, what is here is not what the run was made
            with, or it is guided and cannot be differentiable.
        DataError: a file of the run is broken.
    """
    # Hydra builds a run's parts from its config; nothing else here needs it.
    from latentiqa.commands.trained import find_run, load_run

    device = _known(device)
    finished = find_run(run, "runs")
    loaded = load_run(finished)
    return Metric(
        Scorer(loaded.extractors, loaded.head),
        loaded.views,
        differentiable=differentiable,
        method=finished.method,
        trained_on=finished.trained_on,
        srcc=finished.srcc,
    ).to(device)


def score(
    images: Picture | Iterable[Picture],
    run: str | Path | None = None,
    batch_size: int = 4,
    device: str | torch.device = "cpu",
    max_pixels: int = MAX_PIXELS,
) -> float | list[float] | dict[str, float]:
    """Rate pictures, higher is better.

    Files have the scores that ``latentiqa score`` gives them, which depend a little on the file's
    name, as it seeds LGDM's noise and random crops; those of pixels depend on the pixels alone.

    Args:
        images: one picture, any number of them, or a folder, which is searched through. A picture
            is a file, an image of Pillow, an array ``(H, W, 3)`` of uint8 or in [0, 1], or a
            tensor ``(3, H, W)`` in [0, 1]. Arrays and tensors with a batch dimension before these
            are that many pictures.
        run: folder of a finished training run, or ``student`` or ``lgdm``, which are inside the
            package; None for the student.
        batch_size: pictures, or views of them, computed together.
        device: where to compute.
        max_pixels: larger files and images of Pillow are refused.

    Returns:
        A number for one picture, a list in the given order for several, path -> score for a
        folder.

    Raises:
        ConfigError: an argument is not of that kind; see also `load_metric`.
        DataError: files cannot be read, all of which are listed before anything is computed, or a
            folder holds no picture.
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("max_pixels", max_pixels, 1)
    pictures: list[Any]
    is_folder = is_one = False
    if isinstance(images, (str, Path)) and Path(images).is_dir():
        is_folder, pictures = True, list(find_pictures([images]))
    elif isinstance(images, (str, Path, Image.Image)) or getattr(images, "ndim", None) == 3:
        is_one, pictures = True, [images]
    elif isinstance(images, Iterable):
        pictures = list(images)
    else:
        raise ConfigError(f"images={_kind(images)}: {EXPECTED}.")
    _check_files(pictures, max_pixels)
    metric = load_metric(run, device)
    read = (_read(picture, i, max_pixels) for i, picture in enumerate(pictures))
    scores = list(metric.each(read, batch_size))
    if is_folder:
        return dict(zip(map(str, pictures), scores, strict=True))
    return scores[0] if is_one else scores


def _check_files(pictures: Sequence[Picture], max_pixels: int) -> None:
    paths = dict.fromkeys(Path(p) for p in pictures if isinstance(p, (str, Path)))
    records = [Record(str(path), path, mos=0.0) for path in paths]
    _, bad = inspect_images(records, max_pixels=max_pixels)
    if bad:
        lines = "\n".join(f"  {image.path}: {image.reason}" for image in bad[:20])
        more = f"\n  ... and {len(bad) - 20} more" if len(bad) > 20 else ""
        raise DataError(
            f"{len(bad)} of {len(paths)} files cannot be read:\n{lines}{more}\n"
            "Mend them or leave them out."
        )


def _read(picture: Picture, index: int, max_pixels: int) -> tuple[str, Tensor]:
    """The name that seeds a picture's noise, and the picture, (3, H, W) float32 in [0, 1]."""
    if isinstance(picture, (str, Path)):
        return Path(picture).name, read_image(picture, max_pixels)
    try:
        if isinstance(picture, Image.Image):
            return UNNAMED, from_pillow(picture, max_pixels)
        if isinstance(picture, np.ndarray) and picture.shape[2:] == (3,):
            pixels = torch.from_numpy(np.array(picture, order="C")).permute(2, 0, 1)
            # Divided as those of files are: the same pixels, the same score.
            pixels = pixels.float() / 255 if picture.dtype == np.uint8 else pixels
        elif isinstance(picture, Tensor):
            pixels = picture.detach()
        else:
            raise ConfigError(f"{_kind(picture)}: {EXPECTED}.")
        _check(pixels[None])
    except (ConfigError, DataError) as error:
        raise type(error)(f"images[{index}]: {error}") from error
    return UNNAMED, pixels.float().contiguous()


def _check(image: Any) -> None:
    """Refuse what is not ``(B, 3, H, W)`` in [0, 1]."""
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise ConfigError(
            f"image={_kind(image)}: expected a tensor (B, 3, H, W); image[None] makes a batch of "
            "one picture."
        )
    if not image.is_floating_point():
        raise ConfigError(
            f"image.dtype={image.dtype}: expected floating point in [0, 1]; 8-bit pixels are "
            "divided by 255."
        )
    low, high = (value.item() for value in image.detach().aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # nor where one of them is NaN
        raise ConfigError(
            f"image has values from {low:g} to {high:g}: expected finite ones in [0, 1]; divide "
            "8-bit pixels by 255, or use image.clamp(0, 1)."
        )


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} {tuple(shape)}"


def _known(device: str | torch.device) -> torch.device:
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device={device!r}: expected for example 'cpu' or 'cuda'.") from error
    if known.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device!r}: this PyTorch sees no GPU; use device='cpu'.")
    return known

"""Quality models as priors: their scores, and the common scale of 0 to 100 they are mapped to."""

from __future__ import annotations

import csv
import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor

from latentiqa.data.images import read_image
from latentiqa.errors import ConfigError, DataError, LatentiqaError
from latentiqa.hashing import digest, file_digest, folder_digest
from latentiqa.perceptual import PooledPsi
from latentiqa.recipe import recipe_of

Quality = Callable[[Tensor], Tensor]
"""Pictures ``(B, 3, H, W)`` in [0, 1] -> scores ``(B,)``, higher is better."""


@dataclass(frozen=True)
class Logistic:
    """``100 / (1 + exp(-(q - C) / S))``, so that different models' scores are comparable.

    Args:
        centre: C, the score that becomes 50.
        spread: S, > 0.
        source: where they come from, in words.

    Raises:
        ConfigError: a value is not finite, or the spread not above 0.

    Example:
        >>> [round(q, 2) for q in Logistic(2.0, 0.5)(torch.tensor([2.0, 3.0])).tolist()]
        [50.0, 88.08]
    """

    centre: float
    spread: float
    source: str = "given"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.centre) and math.isfinite(self.spread) and self.spread > 0):
            raise ConfigError(
                f"prior: centre={self.centre}, spread={self.spread}: expected finite numbers, and "
                "spread > 0."
            )

    def __call__(self, score: Tensor) -> Tensor:
        """Mapped scores, in [0, 100]."""
        return 100 * torch.sigmoid((score - self.centre) / self.spread)

    @classmethod
    def fit(cls, scores: Sequence[float], source: str) -> Logistic:
        """The logistic distribution with the scores' mean and standard deviation.

        Its distribution function is the map, so that a mapped score is about the percentage of
        these pictures that are rated lower. The paper's own fit is not published.

        Args:
            scores: of two or more pictures.
            source: where they come from.

        Raises:
            DataError: they do not differ.
        """
        if len(scores) < 2 or not (std := statistics.pstdev(scores)) > 0:
            raise DataError(f"{source}: expected two or more pictures with different scores.")
        return cls(statistics.fmean(scores), std * math.sqrt(3) / math.pi, source)


@dataclass(frozen=True, kw_only=True)
class Prior(ABC):
    """A small description of a quality model.

    Args:
        weight: lambda, what a point of the mapped score counts, > 0.
        centre: C of its `Logistic`; with ``spread``, or neither.
        spread: S.

    Raises:
        ConfigError: a value is outside its range, or only one of the two is given.
    """

    weight: float = 1.0
    centre: float | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"prior.weight={self.weight}: expected a number > 0.")
        if (self.centre is None) != (self.spread is None):
            raise ConfigError("prior: expected both centre and spread, or neither.")

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is, for tables."""

    @abstractmethod
    def load(self, device: torch.device, *, differentiable: bool = True) -> Quality:
        """The model.

        Args:
            device: where it computes.
            differentiable: whether scores have gradients.
        """

    def check(self, *, differentiable: bool = True) -> None:  # noqa: B027
        """Refuse what `load` would, as far as that can be told before anything is loaded.

        Args:
            differentiable: see `load`.

        Raises:
            ConfigError: it is not there, or has no gradient.
        """

    def identity(self) -> str | None:
        """Names what its scores depend on beside the description, or None where nothing is known.

        Raises:
            ConfigError: it is not there.
        """
        return None

    def scale(self) -> Logistic | None:
        """The given scale, or one that the model brings along, or none."""
        if self.centre is not None and self.spread is not None:
            return Logistic(self.centre, self.spread)
        return None


@dataclass(frozen=True, kw_only=True)
class RunPrior(Prior):
    """A finished run of ``latentiqa train``.

    It brings its scale along where its predictions.csv stands: of its own test part.

    Args:
        run: its folder, or the path of its results.json; or the name of a scorer inside the
            package.
    """

    run: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if Path(self.run).name == "results.json":
            object.__setattr__(self, "run", str(Path(self.run).parent))

    @property
    def title(self) -> str:
        """The folder's name."""
        return Path(self.run).name

    def check(self, *, differentiable: bool = True) -> None:
        """See `Prior`: guided runs have no gradient."""
        from latentiqa.commands.trained import find_run

        run = find_run(self.run, "runs")
        guidance = (run.results.get("config") or {}).get("guidance") or {}
        if differentiable and guidance and not guidance["_target_"].endswith(".NoGuidance"):
            raise ConfigError(
                f"prior.run={self.run}: it is guided; its corrections are gradients themselves. "
                "Expected a run that was trained with guidance=none."
            )

    def load(self, device: torch.device, *, differentiable: bool = True) -> Quality:
        """See `Prior`; raises as `latentiqa.metric.load_metric`."""
        from latentiqa.metric import load_metric

        return load_metric(self.run, device, differentiable)

    def identity(self) -> str:
        """See `Prior`: the run and its weights."""
        from latentiqa.commands.trained import find_run

        return find_run(self.run, "runs").identity

    def scale(self) -> Logistic | None:
        """See `Prior`."""
        if (given := super().scale()) is not None:
            return given
        from latentiqa.commands.trained import folder_of

        table = folder_of(self.run) / "predictions.csv"
        if not table.is_file():
            return None
        with table.open(newline="", encoding="utf-8") as file:
            scores = [float(row["pred"]) for row in csv.DictReader(file) if row["part"] == "test"]
        return Logistic.fit(scores, f"the test part of {self.title}")


@dataclass(frozen=True, kw_only=True)
class FunctionPrior(Prior):
    """Any callable of Python: pictures ``(B, 3, H, W)`` in [0, 1] to scores ``(B,)``.

    Args:
        function: ``module:name``; modules of the folder that the command is typed in are found.
    """

    function: str

    @property
    def title(self) -> str:
        """Its name."""
        return self.function

    def identity(self) -> str | None:
        """See `Prior`: the file that it stands in, which need not be run for that."""
        try:
            spec = find_spec(self.function.partition(":")[0])
        except (ImportError, ValueError):  # which `load` explains
            return None
        path = None if spec is None else spec.origin
        return file_digest(path) if path is not None and Path(path).is_file() else None

    def check(self, *, differentiable: bool = True) -> None:
        """See `Prior`."""
        self._found()

    def _found(self) -> Any:
        try:
            found: Any = resolve_name(self.function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"prior.function={self.function}: {error}; expected module:name of a callable."
            ) from error
        if not callable(found):
            raise ConfigError(f"prior.function={self.function}: expected a callable.")
        return found

    def load(self, device: torch.device, *, differentiable: bool = True) -> Quality:
        """See `Prior`.

        Raises:
            ConfigError: there is no such callable.
        """
        found = self._found()

        def quality(image: Tensor) -> Any:  # `checked` sees what it is
            try:
                return found(image)
            except Exception as error:
                # Of one picture, maybe: the next one may be to its taste.
                raise LatentiqaError(f"{self.function}: {type(error).__name__}: {error}") from error

        return quality


@dataclass(frozen=True, kw_only=True)
class PsiPrior(Prior):
    """How usual a picture's psi features are among good pictures, as NIQE does it.

    ``q = -sqrt((f - m)^T (V + r I)^-1 (f - m))`` with mean m and covariance V of the features of
    good pictures (Mittal, Soundararajan and Bovik, IEEE SPL 2013, for whole pictures and any psi);
    r is a tenth of V's mean variance, as there are more features than pictures. For the same
    reason the good pictures themselves are all about as far from their mean: fit the scale on
    others.

    Args:
        psi: its pooled statistics are f.
        good: folder of good pictures.
        pooling: of the statistics.

    Raises:
        ConfigError: it has no statistics of its own.
    """

    psi: PooledPsi
    good: str
    pooling: str = "mean_std"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.psi, PooledPsi):
            raise ConfigError(
                f"prior.psi={type(self.psi).__name__}: expected a psi with statistics of the "
                "picture alone, such as nss."
            )

    @property
    def title(self) -> str:
        """The psi's class."""
        return f"psi {type(self.psi).__name__}"

    def identity(self) -> str:
        """See `Prior`: the good pictures, and the psi with what it says of its weights."""
        return digest([folder_digest(self.good), recipe_of(self.psi)])

    def load(self, device: torch.device, *, differentiable: bool = True) -> Quality:
        """See `Prior`.

        Raises:
            DataError: there are fewer than two readable pictures in the folder.
        """
        from latentiqa.data.folders import find_pictures

        with torch.no_grad():
            rows = [
                self._features(read_image(path)[None].to(device))
                for path in find_pictures([self.good])
            ]
        if len(rows) < 2:
            raise DataError(f"prior.good={self.good}: expected two or more pictures.")
        x = torch.cat(rows).double()
        mean = x.mean(0)
        covariance = torch.cov(x.T)
        ridge = 0.1 * covariance.diagonal().mean()
        # Whitening by the Cholesky factor: the norm of L^-1 (f - m).
        factor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(mean), device=device))

        def score(image: Tensor) -> Tensor:
            apart = (self._features(image).double() - mean).T
            white = torch.linalg.solve_triangular(factor, apart, upper=False)
            return -torch.linalg.vector_norm(white, dim=0).float()

        return score

    def _features(self, image: Tensor) -> Tensor:
        return torch.cat([*self.psi.statistics(image, self.pooling).values()], dim=1)


def named(text: str) -> Prior:
    """The description of a model by a word.

    Args:
        text: ``module:name``, a run's folder, or the name of a scorer inside the package.

    Raises:
        ConfigError: it is a word of `latentiqa compare` alone.

    Example:
        >>> named("lgdm").title, named("my_models:sharpness").title, named("runs/a-1").title
        ('lgdm', 'my_models:sharpness', 'a-1')
    """
    if text.startswith("psi:"):
        raise ConfigError(
            f"{text}: expected a run's folder, a scorer inside the package or module:name; psis "
            "are a prior (prior=psi), or models and judges of latentiqa compare."
        )
    if ":" in text and not Path(text).exists():
        return FunctionPrior(function=text)
    return RunPrior(run=text)


@torch.no_grad()
def fit_scale(
    quality: Quality, paths: Iterable[Path], device: torch.device, max_pixels: int, source: str
) -> Logistic:
    """Fit a model's scale on reference pictures.

    Args:
        quality: the model.
        paths: of the pictures.
        device: where it computes.
        max_pixels: larger pictures are refused.
        source: what they are, in words.

    Raises:
        DataError: a picture cannot be read, or all have the same score.
    """
    scores = [rate(quality, read_image(path, max_pixels)[None].to(device)) for path in paths]
    return Logistic.fit(scores, source)


@torch.no_grad()
def rate(quality: Quality, image: Tensor) -> float:
    """The score of one picture ``(1, 3, H, W)``.

    Raises:
        LatentiqaError: the model does not answer with one finite number.
    """
    return checked(quality(image), image).item()


def checked(score: Any, image: Tensor) -> Tensor:
    """Scores ``(B,)`` of a model that may be anybody's, in float32.

    Raises:
        LatentiqaError: they are not one finite number a picture.
    """
    if not isinstance(score, Tensor):
        raise LatentiqaError(
            f"a quality model answered {type(score).__name__}; expected a tensor of one score for "
            f"each of {len(image)} pictures."
        )
    if score.shape != (len(image),) or not score.isfinite().all():
        raise LatentiqaError(
            f"a quality model answered {tuple(score.shape)} {score.detach().flatten()[:3].tolist()}"
            f" to {len(image)} pictures; expected one finite score each."
        )
    return score.float()

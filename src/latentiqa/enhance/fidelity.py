"""What holds an enhanced picture to what it was: the likelihood of MAP estimation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from latentiqa.enhance.nlpd import check_pyramid, nlpd
from latentiqa.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Term(ABC):
    """A distance, and how much it counts.

    Args:
        weight: it is subtracted from the objective so many times, > 0.
        compares: ``pixels`` or ``latents``.

    Raises:
        ConfigError: a value is outside its range.
    """

    weight: float = 20.0
    compares: str = "pixels"

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"fidelity: weight={self.weight}: expected a number > 0.")
        if self.compares not in ("pixels", "latents"):
            raise ConfigError(
                f"fidelity: compares={self.compares!r}: expected 'pixels' or 'latents'."
            )

    @abstractmethod
    def __call__(self, x: Tensor, reference: Tensor) -> Tensor:
        """Distance ``(B,)`` of ``(B, C, H, W)``, differentiable in the first."""


@dataclass(frozen=True, kw_only=True)
class NLPD(Term):
    """`latentiqa.enhance.nlpd.nlpd`: by default of the low frequencies alone.

    Args:
        levels: of the pyramid.
        bands: ``coarsest`` or ``all``.
    """

    levels: int = 5
    bands: str = "coarsest"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pyramid(self.levels, self.bands)

    def __call__(self, x: Tensor, reference: Tensor) -> Tensor:
        """See `Term`."""
        return nlpd(x, reference, self.levels, self.bands)


@dataclass(frozen=True, kw_only=True)
class MSE(Term):
    """Mean squared error: white Gaussian noise, as MAP estimation would have it."""

    weight: float = 1000.0

    def __call__(self, x: Tensor, reference: Tensor) -> Tensor:
        """See `Term`."""
        return (x - reference).square().flatten(1).mean(1)


class Distance(Protocol):
    """A psi that is a distance, too: LPIPS and DISTS."""

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """``(B,)`` of pictures in [0, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Perceptual(Term):
    """LPIPS or DISTS, of pixels.

    Args:
        psi: which one.

    Raises:
        ConfigError: it is no distance, or shall compare latents.
    """

    psi: Distance

    def __post_init__(self) -> None:
        super().__post_init__()
        if not hasattr(self.psi, "distance"):
            raise ConfigError(
                f"fidelity: psi={type(self.psi).__name__}: expected LPIPSFeatures or DISTSFeatures."
            )
        if self.compares != "pixels":
            raise ConfigError(
                f"fidelity: compares={self.compares!r}: {type(self.psi).__name__} compares pixels."
            )

    def __call__(self, x: Tensor, reference: Tensor) -> Tensor:
        """See `Term`."""
        return self.psi.distance(x, reference)


class Fidelity:
    """Distances to one picture: a term, or a mix of several.

    Args:
        terms: by name.
        image: the picture, ``(1, 3, H, W)`` in [0, 1].
        latents: its clean latents ``(1, C, h, w)``, or None where there are none.

    Raises:
        ConfigError: there is no term, or one compares latents, and there are none.
    """

    def __init__(self, terms: Mapping[str, Term], image: Tensor, latents: Tensor | None) -> None:
        if not terms:
            raise ConfigError("fidelity: expected one or more terms; choose from conf/fidelity/.")
        for name, term in terms.items():
            if term.compares == "latents" and latents is None:
                raise ConfigError(
                    f"fidelity.{name}.compares=latents: in space=pixels there are none; use pixels."
                )
        self.terms, self.image, self.latents = terms, image, latents

    def __call__(self, image: Tensor, latents: Tensor | None) -> Tensor:
        """Weighted sum of the distances, ``(N,)``.

        Args:
            image: ``(N, 3, H, W)`` in [0, 1].
            latents: what it was decoded from, ``(N, C, h, w)``, if anything.
        """
        total = image.new_zeros(len(image))
        for term in self.terms.values():
            x, reference = (
                (image, self.image) if term.compares == "pixels" else (latents, self.latents)
            )
            assert x is not None
            assert reference is not None
            # In float32 as all metrics, latents' own precision is for the chain.
            total = total + term.weight * term(x.float(), reference.float().expand_as(x))
        return total

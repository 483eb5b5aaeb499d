"""Perceptual Manifold Guidance (PMG; Saini et al., LGDM, ICML 2025).

    z'  = z_{0|t} - zeta1 * grad || y - D(z_{0|t}) ||^2           measurement term
    z'' = z'      - zeta2 * grad || psi(y) - psi(D(z')) ||^2      perceptual term

The paper gives the perceptual correction ``zeta2 * grad Phi(z_{0|t})``; that both terms act in
this order on the clean-latent estimate, the step sizes and the two gradient routes are our
reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentiqa.errors import ConfigError

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.perceptual import Psi
    from latentiqa.trajectory import Guide, Step


def squared_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """``|| a - b ||^2`` of each picture, summed over a list of tensors ``(B, ...)``.

    Returns:
        ``(B,)``.
    """
    return torch.stack([(x - y).flatten(1).square().sum(1) for x, y in zip(a, b, strict=True)]).sum(
        0
    )


def rms(x: Tensor) -> Tensor:
    """Root mean square of each picture's latents, ``(B, 1, 1, 1)``."""
    return x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


@dataclass(frozen=True)
class StepSize:
    """How far a term moves the estimate along its gradient.

    Args:
        weight: ``lambda`` for ``normalised``, ``zeta`` itself for ``raw``; 0 switches the term
            off, and its cost with it.
        normalisation: ``normalised`` takes ``zeta = lambda * RMS(z0) / RMS(grad)`` for each
            picture, so ``lambda`` is the relative size of the move; ``raw`` takes
            ``zeta = weight``. The paper publishes no step size: both are ours.

    Raises:
        ConfigError: a value is outside its range.
    """

    weight: float = 0.1
    normalisation: str = "normalised"

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ConfigError(f"guidance weight={self.weight}: expected a finite value >= 0.")
        if self.normalisation not in {"normalised", "raw"}:
            raise ConfigError(
                f"guidance normalisation={self.normalisation!r}: expected 'normalised' or 'raw'."
            )

    def move(self, z0: Tensor, gradient: Tensor) -> Tensor:
        """``zeta * gradient``, ``(B, C, h, w)``; a vanishing gradient moves nothing."""
        z0 = z0.detach()
        if self.normalisation == "raw":
            return self.weight * gradient
        tiny = torch.finfo(gradient.dtype).tiny
        return self.weight * rms(z0) / rms(gradient).clamp_min(tiny) * gradient


@dataclass(frozen=True)
class PMG:
    """Perceptual Manifold Guidance.

    Args:
        psi: the perceptual features; ``None`` leaves the measurement term alone (the paper's
            "psi = empty").
        measurement: step size of the measurement term.
        perceptual: step size of the perceptual term.
        route: what the gradient is taken with respect to. ``latent``: the clean-latent estimate,
            with the noise prediction held constant (manifold-preserving guidance, He et al., ICLR
            2024); ``score``: ``z_t``, through the U-Net as well (DPS, Chung et al., ICLR 2023).

    Raises:
        ConfigError: a value is outside its range.
    """

    psi: Psi | None = None
    measurement: StepSize = field(default_factory=StepSize)
    perceptual: StepSize = field(default_factory=StepSize)
    route: str = "latent"

    def __post_init__(self) -> None:
        if self.route not in {"latent", "score"}:
            raise ConfigError(f"guidance.route={self.route!r}: expected 'latent' or 'score'.")

    @property
    def through_unet(self) -> bool:
        """Whether gradients pass the U-Net, and the trajectory must keep its graph."""
        return self.route == "score"

    def bind(self, image: Tensor, backbone: LatentDiffusion) -> Guide:
        """The correction of one step over these pictures.

        Args:
            image: y, ``(B, 3, H, W)`` in [0, 1].
            backbone: decodes the estimates.

        Returns:
            A callback: step -> corrected clean-latent estimate ``(B, C, h, w)``.
        """
        psi = self.psi if self.perceptual.weight > 0 else None
        with torch.no_grad():
            psi_y = psi(image, backbone) if psi is not None else []

        def measurement_term(z0: Tensor) -> Tensor:
            return squared_distance([image], [backbone.decode(z0)])

        def perceptual_term(z0: Tensor) -> Tensor:
            assert psi is not None
            return squared_distance(psi_y, psi(backbone.decode(z0), backbone))

        def guide(step: Step) -> Tensor:
            move = torch.zeros_like(step.z0)
            if self.measurement.weight > 0:
                gradient = self.gradient(measurement_term, step, move)
                move = move + self.measurement.move(step.z0, gradient)
            if psi is not None:
                gradient = self.gradient(perceptual_term, step, move)
                move = move + self.perceptual.move(step.z0, gradient)
            return (step.z0 - move).detach()

        return guide

    def gradient(self, term: Callable[[Tensor], Tensor], step: Step, move: Tensor) -> Tensor:
        """Gradient of a term at the estimate moved so far, by the chosen route.

        Args:
            term: clean-latent estimate -> ``(B,)``. Pictures do not see each other, so the
                gradient of the sum is each picture's own.
            step: the step.
            move: what has been subtracted from the estimate so far, a constant.

        Returns:
            ``(B, C, h, w)``.
        """
        with torch.enable_grad():
            if self.route == "latent":
                z0 = variable = (step.z0 - move).detach().requires_grad_()
            else:
                z0, variable = step.z0 - move, step.z_t
            # The U-Net's graph of the score route serves both terms.
            return torch.autograd.grad(
                term(z0).sum(), variable, retain_graph=self.route == "score"
            )[0]

"""What guidances lower, as functions of the clean-latent estimate, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentiqa.guidance.distances import Distance

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.perceptual import Psi
    from latentiqa.trajectory import Step

Term = Callable[[Tensor], Tensor]
"""Clean-latent estimate ``(B, C, h, w)`` -> ``(B,)``."""

Decode = Callable[[Tensor], Tensor]
"""Scaled latents ``(B, C, h, w)`` -> pictures ``(B, 3, H, W)``."""


def pixel_term(image: Tensor, decode: Decode, distance: Distance) -> Term:
    """``d(y, D(z))``: the measurement, where the operator is the identity."""
    return lambda z0: distance([image], [decode(z0)])


def latent_term(image: Tensor, backbone: LatentDiffusion, distance: Distance) -> Term:
    """``d(E(y), z)``: the measurement without a decoder, for the price of one encoding."""
    with torch.no_grad():
        z_y = backbone.encode(image)
    return lambda z0: distance([z_y], [z0])


def perceptual_term(
    psi: Psi, image: Tensor, backbone: LatentDiffusion, decode: Decode, distance: Distance
) -> Term:
    """``d(psi(y), psi(D(z)))``."""
    with torch.no_grad():
        psi_y = psi(image, backbone)
    return lambda z0: distance(psi_y, psi(decode(z0), backbone))


def gradient(
    term: Term, step: Step, move: Tensor | float = 0.0, *, through_unet: bool = False
) -> Tensor:
    """Gradient of a term at the estimate moved so far.

    Args:
        term: pictures do not see each other, so the gradient of the sum is each picture's own.
        step: the step.
        move: what has been subtracted from the estimate so far, a constant.
        through_unet: with respect to ``z_t``, through the U-Net; otherwise to the estimate, with
            the noise prediction held constant.

    Returns:
        ``(B, C, h, w)``.
    """
    with torch.enable_grad():
        if through_unet:
            z0, variable = step.z0 - move, step.z_t
        else:
            z0 = variable = (step.z0 - move).detach().requires_grad_()
        # The U-Net's graph serves all terms of a step.
        return torch.autograd.grad(term(z0).sum(), variable, retain_graph=through_unet)[0]

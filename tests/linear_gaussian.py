"""A latent diffusion model whose posterior is known: a Gaussian prior and a linear decoder.

z ~ N(mu, S), y = W z + b + sigma n. The noise predictor is the exact one of this prior, so what
remains between a guided trajectory and the posterior mean is the guidance's alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentiqa.backbones.process import Rates
from latentiqa.guidance import Guidance
from latentiqa.trajectory import Timesteps, trajectory, tweedie

LATENTS, PICTURES = (1, 4, 4), (3, 8, 8)


def directions(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Orthonormal columns."""
    draw = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(draw)[0]


class LinearGaussian:
    """What guidance and trajectory ask of a backbone, in float64.

    The decoder sees some directions of the latents well and others badly (singular values 1 to
    0.3), and the prior is wider in some than in others (variances 0.5 to 1.5): in badly seen,
    narrow ones the posterior mean keeps to the prior, in the others to the picture.

    Args:
        sigma: standard deviation of the measurement's noise.
        seed: of the model, and of the one picture that it has.
    """

    def __init__(self, sigma: float = 0.3, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        d, pixels = torch.Size(LATENTS).numel(), torch.Size(PICTURES).numel()

        def normal(n: int) -> Tensor:
            return torch.randn(n, generator=generator, dtype=torch.float64)

        gains = torch.linspace(1, 0.3, d, dtype=torch.float64)
        self.w = directions(pixels, d, generator) * gains @ directions(d, d, generator).T
        axes = directions(d, d, generator)
        self.s = axes * torch.linspace(0.5, 1.5, d, dtype=torch.float64) @ axes.T
        self.mu, self.b, self.sigma = normal(d), 0.5, sigma
        z = self.mu + torch.linalg.cholesky(self.s) @ normal(d)
        y = self.w @ z + self.b + sigma * normal(pixels)
        self.picture = y.view(1, *PICTURES)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas_cumprod = (1 - betas).cumprod(0)

    def posterior_mean(self) -> Tensor:
        """``E[z | y]`` in closed form, ``(d,)``."""
        prior = torch.linalg.inv(self.s)
        seen = (self.picture - self.b).flatten()
        precision = prior + self.w.T @ self.w / self.sigma**2
        return torch.linalg.solve(precision, prior @ self.mu + self.w.T @ seen / self.sigma**2)

    def distance(self, z: Tensor) -> float:
        """Of latents ``(d,)`` to the posterior mean: 1 for the prior's mean, 0 for its own."""
        mean = self.posterior_mean()
        return ((z - mean).norm() / (self.mu - mean).norm()).item()

    def rates(self, t: int) -> Rates:
        abar = float(self.alphas_cumprod[t])
        return Rates(abar**0.5, (1 - abar) ** 0.5)

    def checkpoint(self, enabled: bool) -> None:
        """There is nothing to keep less of."""

    def decode(self, latents: Tensor) -> Tensor:
        return (latents.flatten(1) @ self.w.T + self.b).view(-1, *PICTURES)

    def encode(self, image: Tensor) -> Tensor:
        """Least squares: the latents whose picture is nearest, the noise fitted along."""
        return ((image - self.b).flatten(1) @ torch.linalg.pinv(self.w).T).view(-1, *LATENTS)

    def predict_noise(
        self, z_t: Tensor, t: int, context: Any, taps: Any = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``E[e | z_t]``, and as the one map the clean-latent estimate ``E[z_0 | z_t]``."""
        a, b = self.rates(t)
        covariance = a**2 * self.s + b**2 * torch.eye(len(self.s), dtype=torch.float64)
        centred = z_t.flatten(1) - a * self.mu
        noise = b * torch.linalg.solve(covariance, centred.T).T.view_as(z_t)
        return noise, {"estimate": tweedie(z_t, noise, Rates(a, b))}

    def maps(self, z_t: Tensor, t: int, context: Any, taps: Any) -> dict[str, Tensor]:
        return self.predict_noise(z_t, t, context)[1]


def estimates(
    model: LinearGaussian, guidance: Guidance, timesteps: Timesteps, starts: int = 64
) -> dict[int, Tensor]:
    """Clean-latent estimate before the correction at each timestep, the mean over starts, ``(d,)``.

    A trajectory ends at a draw; the mean over draws is what can be compared to a mean.
    """
    image = model.picture.expand(starts, -1, -1, -1)
    backbone: Any = model
    steps = trajectory(
        backbone,
        model.encode(image),
        timesteps,
        names=[f"start {i}" for i in range(starts)],
        context={},
        taps=["estimate"],
        guide=guidance.bind(image, backbone),
        through_unet=guidance.through_unet,
        passes=guidance.passes,
    )
    return {t: maps["estimate"].detach().mean(0).flatten() for t, maps in steps}

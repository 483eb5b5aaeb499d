"""The guided denoising trajectory over a picture (LGDM, Saini et al., ICML 2025).

The steps are DDIM's (Song, Meng and Ermon, ICLR 2021); how they are put together is our reading
of the paper, whose body is silent on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentiqa.errors import ConfigError
from latentiqa.noise import image_noise

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion


@dataclass(frozen=True)
class Timesteps:
    """The timesteps of a trajectory, and those whose hyperfeatures are used.

    Args:
        values: strictly falling, each in 0..999; the picture is noised once, to the first.
        use: the ones that features are read at; all by default.
        eta: 0 is deterministic DDIM, 1 has DDPM's variance.
        noised: false is a control: every noise that would be drawn is 0, so that the trajectory
            starts from the mean ``sqrt(abar) z_0`` of what it would start from. Ours.

    Raises:
        ConfigError: a value is outside its range.

    Example:
        >>> Timesteps([100, 50, 10], use=[50]).used
        (50,)
    """

    values: Sequence[int]
    use: Sequence[int] | None = None
    eta: float = 0.0
    noised: bool = True

    def __post_init__(self) -> None:
        values = tuple(self.values)
        if not values or not all(isinstance(t, int) and 0 <= t < 1000 for t in values):
            raise ConfigError(
                f"timesteps.values={list(values)}: expected one or more integers in 0..999."
            )
        if any(later >= earlier for earlier, later in pairwise(values)):
            raise ConfigError(f"timesteps.values={list(values)}: expected strictly falling values.")
        object.__setattr__(self, "values", values)
        if self.use is not None:
            if not self.use or not set(self.use) <= set(values):
                raise ConfigError(
                    f"timesteps.use={list(self.use)}: expected some of timesteps.values="
                    f"{list(values)}."
                )
            object.__setattr__(self, "use", tuple(self.use))
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"timesteps.eta={self.eta}: expected a value in [0, 1].")
        if not isinstance(self.noised, bool):
            raise ConfigError(f"timesteps.noised={self.noised!r}: expected true or false.")

    @property
    def used(self) -> tuple[int, ...]:
        """The timesteps that features are read at, in the order of the trajectory."""
        return tuple(t for t in self.values if self.use is None or t in self.use)


@dataclass(frozen=True)
class Step:
    """One denoising step, as guidance sees it.

    Attributes:
        t: timestep, 0..999.
        z_t: noisy latents ``(B, C, h, w)``; they require a gradient in the ``score`` route.
        noise: the U-Net's noise prediction, same shape.
        z0: Tweedie's estimate of the clean latents, same shape; in the ``score`` route it hangs
            on the graph from ``z_t``.
        abar: cumulative alpha of ``t``.
        abar_prev: cumulative alpha of the timestep gone to.
    """

    t: int
    z_t: Tensor
    noise: Tensor
    z0: Tensor
    abar: float
    abar_prev: float

    def as_estimate(self, move: Tensor) -> Tensor:
        """The move of the estimate that moves the next latents by ``move`` (DDIM, eq. 12)."""
        return move / self.abar_prev**0.5


Guide = Callable[[Step], Tensor]
"""What corrects a step: gets the step, returns the corrected clean-latent estimate."""


def add_noise(z0: Tensor, noise: Tensor, abar: float | Tensor) -> Tensor:
    """Noise clean latents: ``z_t = sqrt(abar) z_0 + sqrt(1 - abar) e`` (DDPM, eq. 4)."""
    return abar**0.5 * z0 + (1 - abar) ** 0.5 * noise


def tweedie(z_t: Tensor, noise: Tensor, abar: float) -> Tensor:
    """Clean-latent estimate: ``z_{0|t} = (z_t - sqrt(1 - abar) e) / sqrt(abar)`` (DDIM, eq. 9)."""
    return (z_t - (1 - abar) ** 0.5 * noise) / abar**0.5


def ddim_sigma(abar: float, abar_prev: float, eta: float) -> float:
    """Standard deviation of the fresh noise of one step (DDIM, eq. 16)."""
    return eta * ((1 - abar_prev) / (1 - abar) * (1 - abar / abar_prev)) ** 0.5


def ddim_step(
    z0: Tensor, noise: Tensor, abar_prev: float, sigma: float = 0.0, fresh: Tensor | None = None
) -> Tensor:
    """Go to the previous timestep (DDIM, eq. 12).

    ``z_prev = sqrt(abar_prev) z0 + sqrt(1 - abar_prev - sigma^2) e + sigma n``

    Args:
        z0: clean-latent estimate ``(B, C, h, w)``, corrected or not.
        noise: the predicted noise e, same shape.
        abar_prev: cumulative alpha of the timestep gone to.
        sigma: standard deviation of the fresh noise.
        fresh: the fresh noise n; needed where ``sigma > 0``.

    Returns:
        Latents at the previous timestep.
    """
    z_prev = abar_prev**0.5 * z0 + (1 - abar_prev - sigma**2) ** 0.5 * noise
    if sigma > 0:
        assert fresh is not None
        z_prev = z_prev + sigma * fresh
    return z_prev


def trajectory(
    backbone: LatentDiffusion,
    z0: Tensor,
    timesteps: Timesteps,
    *,
    names: Sequence[str],
    context: Tensor,
    taps: Sequence[str],
    guide: Guide | None = None,
    through_unet: bool = False,
    passes: Callable[[int], int] = lambda t: 1,
    seed: int = 0,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Run the guided trajectory and yield the tapped maps of each timestep.

    The last timestep's pass ends after the last tapped layer, and it is not guided: nothing
    reads what would come after it.

    Without a guide the maps are differentiable in ``z0`` where gradients are enabled: the noise
    is a constant, and the graph holds all steps. With a guide they are constants: a correction is
    itself a gradient, and second derivatives are not offered.

    Args:
        backbone: the frozen model.
        z0: the picture's scaled latents ``(B, C, h, w)``.
        timesteps: where the trajectory goes; it ends at the last one used.
        names: the pictures' names; with ``seed`` they fix the noise.
        context: the prompt's hidden states ``(B, 77, D)``.
        taps: exact layer addresses.
        guide: corrects the clean-latent estimate of each step, or none.
        through_unet: keep the graph from ``z_t`` to the estimate for a guide of the ``score``
            route.
        passes: how often the step from a timestep is made; after all but the last pass the
            trajectory travels back (FreeDoM, Yu et al., ICCV 2023, algorithm 2), and the maps are
            the last pass's.
        seed: the run's seed.

    Yields:
        timestep, address -> map ``(B, C, h, w)``.
    """
    abar = backbone.alpha_bar

    def noise_for(t: int, use: str = "") -> Tensor:
        if not timesteps.noised:
            return torch.zeros_like(z0)
        drawn = [name + use for name in names]
        return image_noise(drawn, t, z0.shape[1:], seed=seed, device=z0.device, dtype=z0.dtype)

    keep_graph = torch.is_grad_enabled() if guide is None else through_unet
    path = timesteps.values[: timesteps.values.index(timesteps.used[-1]) + 1]
    if guide is not None:
        z0 = z0.detach()
    z_t = add_noise(z0, noise_for(path[0]), abar(path[0]))
    for t, t_prev in pairwise(path):
        for remaining in reversed(range(passes(t))):
            with torch.set_grad_enabled(keep_graph):
                if guide is not None:
                    z_t.requires_grad_(through_unet)
                noise, maps = backbone.predict_noise(z_t, t, context, taps)
                z0_t = tweedie(z_t, noise, abar(t))
            if remaining == 0:
                if guide is not None:
                    maps = {address: value.detach() for address, value in maps.items()}
                yield t, maps
            if guide is not None:
                with torch.no_grad():
                    z0_t = guide(Step(t, z_t, noise, z0_t, abar(t), abar(t_prev))).detach()
                noise = noise.detach()
            use = f"/{remaining} more" if remaining else ""
            sigma = ddim_sigma(abar(t), abar(t_prev), timesteps.eta)
            fresh = noise_for(t_prev, use) if sigma > 0 else None
            z_t = ddim_step(z0_t, noise, abar(t_prev), sigma, fresh)
            if remaining:
                z_t = add_noise(z_t, noise_for(t, f"{use}, back"), abar(t) / abar(t_prev))
    yield path[-1], backbone.maps(z_t, path[-1], context, taps)

"""The guided denoising trajectory over a picture (LGDM, Saini et al., ICML 2025).

The steps are DDIM's (Song, Meng and Ermon, ICLR 2021), written with the rates of signal and noise
of any process, ``z_t = a_t z_0 + b_t e``; how they are put together is our reading of the paper,
whose body is silent on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentiqa.backbones.process import Rates
from latentiqa.errors import ConfigError
from latentiqa.noise import image_noise

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import Context, LatentDiffusion


@dataclass(frozen=True)
class Timesteps:
    """The timesteps of a trajectory, and those whose hyperfeatures are used.

    Args:
        values: strictly falling, each in 0..999; the picture is noised once, to the first.
        use: the ones that features are read at; all by default.
        eta: 0 is deterministic DDIM, 1 has DDPM's variance.
        noised: false is a control: every noise that would be drawn is 0, so that the trajectory
            starts from the mean ``a_t z_0`` of what it would start from. Ours.

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
        noise: the denoiser's noise prediction, same shape.
        z0: Tweedie's estimate of the clean latents, same shape; in the ``score`` route it hangs
            on the graph from ``z_t``.
        rates: of signal and noise in ``z_t``.
        rates_prev: those of the timestep gone to.
    """

    t: int
    z_t: Tensor
    noise: Tensor
    z0: Tensor
    rates: Rates
    rates_prev: Rates

    def as_estimate(self, move: Tensor) -> Tensor:
        """The move of the estimate that moves the next latents by ``move`` (DDIM, eq. 12)."""
        return move / self.rates_prev.signal


Guide = Callable[[Step], Tensor]
"""What corrects a step: gets the step, returns the corrected clean-latent estimate."""


def add_noise(z0: Tensor, noise: Tensor, rates: Rates) -> Tensor:
    """Noise clean latents: ``z_t = a_t z_0 + b_t e`` (DDPM, eq. 4)."""
    return rates.signal * z0 + rates.noise * noise


def tweedie(z_t: Tensor, noise: Tensor, rates: Rates) -> Tensor:
    """Clean-latent estimate: ``z_{0|t} = (z_t - b_t e) / a_t`` (DDIM, eq. 9)."""
    return (z_t - rates.noise * noise) / rates.signal


def ddim_sigma(rates: Rates, rates_prev: Rates, eta: float) -> float:
    """Standard deviation of the fresh noise of one step (DDIM, eq. 16).

    ``sigma = eta b_s b_{t|s} / b_t`` from t to s: for eta = 1 that of the process run backwards.
    """
    return eta * rates_prev.noise * rates.since(rates_prev).noise / rates.noise


def ddim_step(
    z0: Tensor, noise: Tensor, rates_prev: Rates, sigma: float = 0.0, fresh: Tensor | None = None
) -> Tensor:
    """Go to the previous timestep (DDIM, eq. 12).

    ``z_s = a_s z0 + sqrt(b_s^2 - sigma^2) e + sigma n``; for a rectified flow and sigma = 0 it is
    Euler's step.

    Args:
        z0: clean-latent estimate ``(B, C, h, w)``, corrected or not.
        noise: the predicted noise e, same shape.
        rates_prev: a_s and b_s of the timestep gone to.
        sigma: standard deviation of the fresh noise.
        fresh: the fresh noise n; needed where ``sigma > 0``.

    Returns:
        Latents at the previous timestep.
    """
    if sigma == 0:
        return add_noise(z0, noise, rates_prev)
    assert fresh is not None
    kept = (rates_prev.noise**2 - sigma**2) ** 0.5
    return rates_prev.signal * z0 + kept * noise + sigma * fresh


def trajectory(
    backbone: LatentDiffusion,
    z0: Tensor,
    timesteps: Timesteps,
    *,
    names: Sequence[str],
    context: Context,
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
        context: what conditions the denoiser, of ``backbone.context``.
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
    rates = backbone.rates

    def noise_for(t: int, use: str = "") -> Tensor:
        if not timesteps.noised:
            return torch.zeros_like(z0)
        drawn = [name + use for name in names]
        return image_noise(drawn, t, z0.shape[1:], seed=seed, device=z0.device, dtype=z0.dtype)

    keep_graph = torch.is_grad_enabled() if guide is None else through_unet
    path = timesteps.values[: timesteps.values.index(timesteps.used[-1]) + 1]
    if guide is not None:
        z0 = z0.detach()
    z_t = add_noise(z0, noise_for(path[0]), rates(path[0]))
    for t, t_prev in pairwise(path):
        for remaining in reversed(range(passes(t))):
            with torch.set_grad_enabled(keep_graph):
                if guide is not None:
                    z_t.requires_grad_(through_unet)
                noise, maps = backbone.predict_noise(z_t, t, context, taps)
                z0_t = tweedie(z_t, noise, rates(t))
            if remaining == 0:
                if guide is not None:
                    maps = {address: value.detach() for address, value in maps.items()}
                yield t, maps
            if guide is not None:
                with torch.no_grad():
                    z0_t = guide(Step(t, z_t, noise, z0_t, rates(t), rates(t_prev))).detach()
                noise = noise.detach()
            use = f"/{remaining} more" if remaining else ""
            sigma = ddim_sigma(rates(t), rates(t_prev), timesteps.eta)
            fresh = noise_for(t_prev, use) if sigma > 0 else None
            z_t = ddim_step(z0_t, noise, rates(t_prev), sigma, fresh)
            if remaining:
                back = rates(t).since(rates(t_prev))
                z_t = add_noise(z_t, noise_for(t, f"{use}, back"), back)
    yield path[-1], backbone.maps(z_t, path[-1], context, taps)

"""Forward processes: how latents are noised, and what a denoiser's output says of the noise.

    z_t = a_t z_0 + b_t e

with the rates of signal a_t and noise b_t. Trajectory and guidance know the rates alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from latentiqa.errors import ConfigError


class Rates(NamedTuple):
    """What noisy latents are made of.

    Attributes:
        signal: a_t, in (0, 1].
        noise: b_t, in [0, 1).

    Example:
        >>> Rates(0.8, 0.6).since(Rates(1.0, 0.0))
        Rates(signal=0.8, noise=0.6)
    """

    signal: float
    noise: float

    def since(self, earlier: Rates) -> Rates:
        """Rates of the way from less noise to this: ``z_t = a_t/a_s z_s + b_{t|s} e``.

        ``b_{t|s}^2 = b_t^2 - (a_t/a_s)^2 b_s^2``: what variance is still to come (Kingma et al.,
        Variational Diffusion Models, NeurIPS 2021, appendix A).

        Args:
            earlier: a_s and b_s, of a timestep with less noise.
        """
        signal = self.signal / earlier.signal
        return Rates(signal, (self.noise**2 - signal**2 * earlier.noise**2) ** 0.5)


class Process(Protocol):
    """A forward process over timesteps 0 to 999, and what its denoiser predicts."""

    def rates(self, t: int) -> Rates:
        """Rates of a timestep."""
        ...

    def noise(self, output: Tensor, z_t: Tensor, t: int) -> Tensor:
        """The noise that a denoiser's output means, ``(B, C, h, w)``."""
        ...


class VariancePreserving:
    """``a_t = sqrt(abar_t)``, ``b_t = sqrt(1 - abar_t)`` (DDPM, Ho et al., NeurIPS 2020, eq. 4).

    Args:
        alphas_cumprod: abar, ``(1000,)``.
        prediction_type: ``epsilon``, or ``v_prediction``: ``v = a_t e - b_t z_0``, so
            ``e = a_t v + b_t z_t`` (Salimans and Ho, ICLR 2022, appendix D).

    Raises:
        ConfigError: it predicts something else.
    """

    def __init__(self, alphas_cumprod: Tensor, prediction_type: str) -> None:
        if prediction_type not in {"epsilon", "v_prediction"}:
            raise ConfigError(
                f"scheduler.prediction_type={prediction_type!r}: expected 'epsilon' or "
                "'v_prediction'."
            )
        self.alphas_cumprod: list[float] = alphas_cumprod.double().tolist()
        self.prediction_type = prediction_type

    def rates(self, t: int) -> Rates:
        """Rates of a timestep."""
        abar = self.alphas_cumprod[t]
        return Rates(abar**0.5, (1 - abar) ** 0.5)

    def noise(self, output: Tensor, z_t: Tensor, t: int) -> Tensor:
        """The noise that a denoiser's output means, ``(B, C, h, w)``."""
        if self.prediction_type == "epsilon":
            return output
        rates = self.rates(t)
        return rates.signal * output + rates.noise * z_t


class RectifiedFlow:
    """``a_t = 1 - t/1000``, ``b_t = t/1000`` (Liu et al., ICLR 2023; SD3, Esser et al., ICML 2024).

    The denoiser predicts the velocity ``v = e - z_0``, so ``e = z_t + a_t v`` and Tweedie's
    estimate is ``z_t - b_t v``. A sampler's shift of timesteps only says which t it visits.
    """

    def rates(self, t: int) -> Rates:
        """Rates of a timestep."""
        return Rates(1 - t / 1000, t / 1000)

    def noise(self, output: Tensor, z_t: Tensor, t: int) -> Tensor:
        """The noise that a denoiser's output means, ``(B, C, h, w)``."""
        return z_t + self.rates(t).signal * output


def process_of(scheduler: Any) -> Process:
    """The process that a scheduler of diffusers runs backwards.

    Raises:
        ConfigError: its denoiser predicts neither noise, v nor a flow's velocity.
    """
    if type(scheduler).__name__.startswith("FlowMatch"):
        return RectifiedFlow()
    return VariancePreserving(scheduler.alphas_cumprod, scheduler.config.prediction_type)

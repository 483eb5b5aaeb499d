"""What a latent diffusion model can do, measured on pictures that it was not trained on.

Three questions: how much of a picture survives the autoencoder, how well the U-Net tells noise
from picture at each timestep, and whether it reads captions: is the noise of a degraded crop
predicted better with the words for what was done to it than with others?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from latentiqa.backbones.ldm import LatentDiffusion
from latentiqa.backbones.process import Rates
from latentiqa.data.captions import (
    WORDS,
    Degradation,
    Degradations,
    describe,
    quality,
    sample_degradations,
)
from latentiqa.data.crops import DegradedCrops
from latentiqa.data.distortions import distort
from latentiqa.errors import ConfigError
from latentiqa.noise import image_noise
from latentiqa.trajectory import add_noise


@torch.no_grad()
def reconstruct(backbone: LatentDiffusion, image: Tensor) -> Tensor:
    """What is left of pictures after the autoencoder: ``D(E(x))``, clipped to [0, 1].

    Args:
        backbone: the diffusion model.
        image: ``(B, 3, H, W)`` in [0, 1]; H and W are multiples of the autoencoder's factor.

    Returns:
        Same shape.
    """
    return backbone.decode(backbone.encode(image)).clamp(0, 1)


class Crops(NamedTuple):
    """Crops whose degradations are known, as latents.

    Attributes:
        z0: scaled latents ``(N, C, h, w)``.
        degradations: what was done to each, N.
        names: unique; they fix the noise.
    """

    z0: Tensor
    degradations: tuple[Degradations, ...]
    names: tuple[str, ...]


@torch.no_grad()
def known_crops(
    backbone: LatentDiffusion,
    photos: DegradedCrops,
    chains: Sequence[Degradations],
    start: int = 0,
    batch_size: int = 16,
) -> Crops:
    """Degrade crops as it is asked for, and encode them.

    Args:
        backbone: encodes.
        photos: crops that nothing was done to: ``clean=1``.
        chains: what shall be done to each crop, N.
        start: index of the first crop in ``photos``.
        batch_size: crops encoded at once.

    Returns:
        N crops, on the backbone's device.

    Raises:
        ConfigError: ``photos`` degrades by itself.
        DataError: a photo cannot be read.
    """
    if photos.clean != 1:
        raise ConfigError(f"clean={photos.clean}: expected 1, crops that are still as they were.")
    images: list[Tensor] = []
    latents: list[Tensor] = []
    names = []
    for index, chain in enumerate(chains, start):
        drawn = photos[index]
        picture = drawn["image"].permute(1, 2, 0).numpy()
        # Not the stream that the crop was drawn from: it would begin with the same numbers.
        rng = np.random.default_rng([photos.seed, index, 1])
        for kind, level in chain:
            picture = distort(picture, kind, level, seed=int(rng.integers(2**31)))
        images.append(torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1))
        names.append(f"{index}:{drawn['name']}")
        if len(images) == batch_size or len(names) == len(chains):
            latents.append(backbone.encode(torch.stack(images).to(backbone.device)))
            images.clear()
    return Crops(torch.cat(latents), tuple(chains), tuple(names))


@torch.no_grad()
def denoising_errors(
    backbone: LatentDiffusion,
    crops: Crops,
    captions: Sequence[str],
    timesteps: Sequence[int],
    seed: int = 0,
    batch_size: int = 16,
) -> Tensor:
    """Mean squared error of the noise prediction, ``|| e - e_theta(z_t, t, c) ||^2 / dim``.

    Each crop has one noise a timestep, whatever the caption and the model. The noise has unit
    variance: predicting none at all, the best constant, has an error of 1.

    Args:
        backbone: the diffusion model; v predictions are turned to noise.
        crops: N crops.
        captions: of each crop, N.
        timesteps: T of them, 0 to 999.
        seed: of the noise.
        batch_size: crops a U-Net pass.

    Returns:
        ``(N, T)``, on the CPU; averaged over the crops it is the denoising loss of each timestep.
    """
    errors = []
    for start in range(0, len(crops.z0), batch_size):
        part = slice(start, start + batch_size)
        z0, names = crops.z0[part], crops.names[part]
        contexts = [backbone.context(caption) for caption in captions[part]]
        context = {name: torch.cat([each[name] for each in contexts]) for name in contexts[0]}
        row = []
        for t in timesteps:
            noise = image_noise(names, t, z0.shape[1:], seed=seed, device=z0.device, dtype=z0.dtype)
            z_t = add_noise(z0, noise, backbone.rates(t))
            predicted, _ = backbone.predict_noise(z_t, t, context)
            row.append((predicted - noise).square().mean(dim=(1, 2, 3)))
        errors.append(torch.stack(row, dim=1))
    return torch.cat(errors).cpu()


def linear_loss(rates: Rates, power: float) -> float:
    """Denoising loss of the best multiple of ``z_t``, what no U-Net is needed for.

    ``E ||e - c z_t||^2`` is least for ``c = b / (a^2 p + b^2)``, where it is
    ``a^2 p / (a^2 p + b^2)``.

    Args:
        rates: a and b, of signal and noise at the timestep.
        power: p, the mean square of the latents ``z_0``; 1 if their scale is as it should be.

    Example:
        >>> linear_loss(Rates(0.5, 0.5), power=3.0)
        0.75
    """
    signal, noise = rates.signal**2 * power, rates.noise**2
    return signal / (signal + noise)


def another(degradations: Degradations, rng: np.random.Generator) -> Degradations:
    """Draw degradations that a crop has not: other kinds, and another grade of quality.

    Example:
        >>> done = (Degradation("jpeg", 4),)
        >>> describe(another(done, np.random.default_rng(0)))
        'a somewhat faded photo, fair quality'
    """
    kinds = {kind for kind, _ in degradations}
    while True:
        drawn = sample_degradations(rng, clean=0)
        if quality(drawn) != quality(degradations) and kinds.isdisjoint(k for k, _ in drawn):
            return drawn


def other_kind(degradation: Degradation, rng: np.random.Generator) -> Degradation:
    """Draw another kind of the same level: a caption that differs in this word alone."""
    kinds = [kind for kind in WORDS if kind != degradation.kind]
    return Degradation(kinds[rng.integers(len(kinds))], degradation.level)


@dataclass(frozen=True)
class CaptionFit:
    """Denoising losses of the same crops with the caption that fits and with a wrong one.

    Attributes:
        fit: ``(N,)``.
        wrong: ``(N,)``.
    """

    fit: Tensor
    wrong: Tensor

    def row(self) -> dict[str, float]:
        """How often the fitting caption has the lower loss, and how sure that is.

        The crop is the unit: it has one noise a timestep and one pair of losses, each averaged
        over the timesteps. So the 95 % interval of the share is Wilson's (JASA 1927); it takes
        crops of one photo for independent. A model that does not read has a share of 0.5.

        Returns:
            ``n``, ``wins``, ``share`` with its interval ``low`` to ``high``, and the mean losses
            ``loss_fit`` and ``loss_wrong``.

        Example:
            >>> row = CaptionFit(torch.zeros(10), torch.ones(10)).row()
            >>> row["share"], round(row["low"], 3), row["high"]
            (1.0, 0.722, 1.0)
        """
        n, wins = len(self.fit), int((self.fit < self.wrong).sum())
        interval = binomtest(wins, n).proportion_ci(0.95, method="wilson")
        return {
            "n": n,
            "wins": wins,
            "share": wins / n,
            "low": float(interval.low),
            "high": float(interval.high),
            "loss_fit": self.fit.mean().item(),
            "loss_wrong": self.wrong.mean().item(),
        }


def caption_fit(
    backbone: LatentDiffusion,
    crops: Crops,
    wrong: Mapping[str, Sequence[str]],
    timesteps: Sequence[int] = (100, 300, 500, 700),
    seed: int = 0,
    batch_size: int = 16,
) -> dict[str, CaptionFit]:
    """Compare the caption that says what was done to a crop with others.

    Args:
        backbone: the diffusion model.
        crops: N crops; `describe` says what fits.
        wrong: name -> a caption of each crop that does not fit, N.
        timesteps: the losses are averaged over them.
        seed: see `denoising_errors`.
        batch_size: see `denoising_errors`.

    Returns:
        Name -> losses with the fitting and with this caption.
    """

    def loss(captions: Sequence[str]) -> Tensor:
        errors = denoising_errors(backbone, crops, captions, timesteps, seed, batch_size)
        return errors.mean(dim=1)

    fit = loss([describe(done) for done in crops.degradations])
    return {name: CaptionFit(fit, loss(captions)) for name, captions in wrong.items()}

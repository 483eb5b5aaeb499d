"""What a trajectory does to one picture: its estimates, how far they are from it, its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentiqa.guidance.distances import squared
from latentiqa.trajectory import Step, Timesteps, trajectory

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.methods.lgdm import LGDM
    from latentiqa.metric import Metric
    from latentiqa.perceptual import Psi


@dataclass(frozen=True)
class Trace:
    """One picture's way.

    Attributes:
        predicted: timestep -> Tweedie's estimate of the clean latents, ``(1, C, h, w)``.
        corrected: timestep -> the same after guidance; what the next timestep starts from.
        maps: timestep -> layer address -> map ``(1, C, h, w)``.
    """

    predicted: dict[int, Tensor]
    corrected: dict[int, Tensor]
    maps: dict[int, dict[str, Tensor]]


def trace(lgdm: LGDM, image: Tensor, name: str) -> Trace:
    """Run the trajectory of an LGDM and keep what it otherwise only passes through.

    Hyperfeatures end with a pass that predicts no noise. Here a step to timestep 0 follows, so
    that the last timestep has an estimate too, unless it is 0 itself; the maps are the same.

    Args:
        lgdm: whose backbone, timesteps, layers, guidance and seed are taken.
        image: ``(1, 3, H, W)`` in [0, 1].
        name: the picture's; it seeds the noise.

    Raises:
        ConfigError: the sides are not what the backbone can halve.
    """
    lgdm.backbone.check_sides(image)
    values = list(lgdm.timesteps.values)
    longer = Timesteps(
        [*values, *([0] if values[-1] else [])],
        eta=lgdm.timesteps.eta,
        noised=lgdm.timesteps.noised,
    )
    guide = lgdm.guidance.bind(image, lgdm.backbone) or (lambda step: step.z0)
    found = Trace({}, {}, {})

    def observed(step: Step) -> Tensor:
        corrected = guide(step).detach()
        found.predicted[step.t], found.corrected[step.t] = step.z0.detach(), corrected
        return corrected

    with torch.no_grad():
        z0 = lgdm.backbone.encode(image)
    for t, maps in trajectory(
        lgdm.backbone,
        z0,
        longer,
        names=[name],
        context=lgdm.backbone.context(lgdm.prompt),
        taps=lgdm.taps,
        guide=observed,
        through_unet=lgdm.guidance.through_unet,
        passes=lambda t: 1 if t == values[-1] else lgdm.guidance.passes(t),
        seed=lgdm.seed,
    ):
        if t in values:
            found.maps[t] = {address: value.detach() for address, value in maps.items()}
    return found


@torch.no_grad()
def measure(
    backbone: LatentDiffusion,
    image: Tensor,
    latents: Sequence[Tensor],
    psi: Psi | None,
    metric: Metric,
    name: str,
) -> dict[str, list[float]]:
    """How far estimates are from the picture, and how good they look.

    Args:
        backbone: decodes them.
        image: y, ``(1, 3, H, W)`` in [0, 1].
        latents: clean latents z, each ``(1, C, h, w)``.
        psi: perceptual features; without them there is no such distance.
        metric: rates the decoded estimates, clipped to [0, 1].
        name: the picture's; it seeds the noise of a metric that needs some.

    Returns:
        ``pixels``, ``latents`` (root mean squares of ``y - D(z)`` and ``E(y) - z``), ``psi``
        (``|| psi(y) - psi(D(z)) ||^2``) and ``score``, a value for each of the latents.
    """
    z_y, psi_y = backbone.encode(image), psi(image, backbone) if psi else []
    rows = []
    for z in latents:
        decoded = backbone.decode(z)
        row = {
            "pixels": (image - decoded).square().mean().sqrt(),
            "latents": (z_y - z).square().mean().sqrt(),
            "score": metric(decoded.clamp(0, 1), [name]),
        }
        if psi:
            row["psi"] = squared(psi_y, psi(decoded, backbone))
        rows.append({key: value.item() for key, value in row.items()})
    return {key: [row[key] for row in rows] for key in rows[0]}


def principal_colours(maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Three principal components of a layer's maps as red, green and blue.

    All timesteps share the components and the scale, so that colours may be compared.

    Args:
        maps: timestep -> map ``(1, C, h, w)``, C of 3 and more.

    Returns:
        timestep -> ``(h, w, 3)`` in [0, 1]; the outermost hundredths of a component are clipped.

    Example:
        >>> pictures = principal_colours({t: torch.rand(1, 8, 4, 4) for t in (100, 10)})
        >>> pictures[100].shape
        torch.Size([4, 4, 3])
    """
    pixels = torch.cat([x[0].flatten(1).T for x in maps.values()]).double().cpu()
    pixels = pixels - pixels.mean(0)
    vectors = torch.linalg.eigh(pixels.T @ pixels)[1][:, -3:].flip(1)
    # The sign of a component is nobody's choice: its largest weight is made positive.
    largest = vectors.abs().argmax(0)
    vectors = vectors * vectors[largest, torch.arange(3)].sign()
    components = pixels @ vectors
    low, high = components.quantile(torch.tensor([0.01, 0.99]).double(), dim=0)
    colours = ((components - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).float()
    sides = [x.shape[-2:] for x in maps.values()]
    parts = colours.split([height * width for height, width in sides])
    return {t: x.unflatten(0, side) for t, x, side in zip(maps, parts, sides, strict=True)}

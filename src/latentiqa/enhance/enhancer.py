"""One picture from beginning to end: tiles, ascent, and what all models say before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentiqa.enhance.ascent import Ascent, Objective, Way, ascend
from latentiqa.enhance.fidelity import Fidelity, Term
from latentiqa.enhance.photo import as_saved
from latentiqa.enhance.prior import Logistic, Quality, rate
from latentiqa.enhance.space import Space
from latentiqa.enhance.tiles import Tiles, Tiling

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion


@dataclass(frozen=True)
class Enhanced:
    """A picture after enhancement.

    Attributes:
        picture: ``(3, H, W)`` in [0, 1], as its file holds it, of the input's size.
        tiles: how the picture was cut.
        ways: the ascent of each tile.
        before: of the input: ``prior`` (the raw score), ``mapped``, and each judge's score.
        start: the same of the picture that the ascent began at: the input, or a reference.
        after: the same of the result.
        distance: of both by the terms that compare pixels; None where there are none.
    """

    picture: Tensor
    tiles: Tiles
    ways: list[Way]
    before: dict[str, float]
    start: dict[str, float]
    after: dict[str, float]
    distance: float | None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of the ascent of each tile, see `latentiqa.enhance.ascent.Way`, with its number."""
        return [{"tile": i, **row} for i, way in enumerate(self.ways) for row in way.rows]

    @property
    def ended(self) -> list[str]:
        """Why the ascent of each tile ended."""
        return [way.ended for way in self.ways]

    def frames(self) -> Iterator[Tensor]:
        """Whole pictures on the way, one at a time; a tile whose ascent has ended stays."""
        for i in sorted({i for way in self.ways for i in way.frames}):
            last = [max(kept for kept in way.frames if kept <= i) for way in self.ways]
            frames = [way.frames[kept] for way, kept in zip(self.ways, last, strict=True)]
            yield self.tiles.blend([frame.float() / 255 for frame in frames])

    @property
    def is_adversarial(self) -> bool | None:
        """Whether the prior rises and every judge falls: what rose is not the quality.

        None without a judge.
        """
        judges = self.start.keys() - {"prior", "mapped"}
        gains = {name: self.after[name] - score for name, score in self.start.items()}
        return rises_alone(gains["prior"], [gains[name] for name in judges])


def rises_alone(gain: float, others: Sequence[float]) -> bool | None:
    """Whether a model's score rises and that of all others falls; None without others.

    Example:
        >>> rises_alone(0.1, [-0.2, -0.1]), rises_alone(0.1, [-0.2, 0.1]), rises_alone(0.1, [])
        (True, False, None)
    """
    return gain > 0 > max(others) if others else None


@dataclass(frozen=True)
class Enhancer:
    """All that enhances a picture, loaded.

    Attributes:
        backbone: the frozen diffusion model.
        space: what ascent moves.
        ascent: how.
        quality: the prior's model.
        scale: maps its scores.
        weight: lambda.
        terms: of fidelity.
        judges: models that rate and do not guide.
        tiling: how large pictures are cut.
        keep_every: see `latentiqa.enhance.ascent.ascend`.
    """

    backbone: LatentDiffusion
    space: Space
    ascent: Ascent
    quality: Quality
    scale: Logistic
    weight: float
    terms: Mapping[str, Term]
    judges: Mapping[str, Quality]
    tiling: Tiling
    keep_every: int | None = None

    def __call__(self, image: Tensor, reference: Tensor | None = None) -> Enhanced:
        """Enhance a picture.

        Args:
            image: ``(3, H, W)`` in [0, 1].
            reference: another enhancer's picture of it, of the same size: ascent begins there and
                fidelity holds to it, while ``before`` is still the picture's own.
        """
        start = image if reference is None else reference
        height, width = image.shape[-2:]
        tiles = Tiles(height, width, self.tiling, self.space.multiple(self.backbone))
        # The whole picture takes most memory where models rate it: what is too large fails here.
        before = self._rated(image)
        began = before if reference is None else self._rated(reference)
        ways = [self._ascend(tile[None].to(self.backbone.device)) for tile in tiles.cut(start)]
        picture = as_saved(tiles.blend([way.picture for way in ways]))
        distance = self._distance(picture, start)
        return Enhanced(picture, tiles, ways, before, began, self._rated(picture), distance)

    def _ascend(self, tile: Tensor) -> Way:
        latents = self.space.latents(self.backbone, tile)
        fidelity = Fidelity(self.terms, tile, latents)
        objective = Objective(self.quality, self.scale, self.weight, fidelity)
        return ascend(
            *(self.backbone, self.space, self.ascent, objective, tile),
            judges=self.judges,
            keep_every=self.keep_every,
        )

    def _distance(self, picture: Tensor, reference: Tensor) -> float | None:
        """Of whole pictures, by the terms that compare pixels; None where there are none."""
        terms = {name: term for name, term in self.terms.items() if term.compares == "pixels"}
        if not terms:
            return None
        x, reference = (image[None].to(self.backbone.device) for image in (picture, reference))
        return Fidelity(terms, reference, None)(x, None).item()

    def _rated(self, image: Tensor) -> dict[str, float]:
        """What the prior and the judges say of a whole picture."""
        batch = image[None].to(self.backbone.device)
        raw = rate(self.quality, batch)
        mapped = self.scale(torch.tensor(raw)).item()
        return {
            "prior": raw,
            "mapped": mapped,
            **{name: rate(judge, batch) for name, judge in self.judges.items()},
        }

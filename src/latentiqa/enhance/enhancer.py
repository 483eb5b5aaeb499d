"""One picture from beginning to end: tiles, ascent, and what all models say before and after."""

from __future__ import annotations

from collections.abc import Mapping
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
        rows: of the ascent of each tile, see `latentiqa.enhance.ascent.Way`, with its number.
        frames: whole pictures on the way by iteration; a tile whose ascent has ended stays.
        before: of the input: ``prior`` (the raw score), ``mapped``, and each judge's score.
        after: the same of the result.
        distance: of both by the terms that compare pixels; None where there are none.
        ended: why the ascent of each tile ended.
    """

    picture: Tensor
    rows: list[dict[str, Any]]
    frames: dict[int, Tensor]
    before: dict[str, float]
    after: dict[str, float]
    distance: float | None
    ended: list[str]

    @property
    def is_adversarial(self) -> bool:
        """Whether the prior rises and every judge falls: what rose is not the quality."""
        judges = self.before.keys() - {"prior", "mapped"}
        gains = {name: self.after[name] - score for name, score in self.before.items()}
        return bool(judges) and gains["prior"] > 0 > max(gains[name] for name in judges)


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
        ways = [self._ascend(tile[None].to(self.backbone.device)) for tile in tiles.cut(start)]
        picture = as_saved(tiles.blend([way.picture for way in ways]))
        return Enhanced(
            picture,
            [{"tile": number, **row} for number, way in enumerate(ways) for row in way.rows],
            {i: tiles.blend([_until(way.frames, i) for way in ways]) for i in _iterations(ways)},
            self._rated(image),
            self._rated(picture),
            self._distance(picture, start),
            [way.ended for way in ways],
        )

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


def _iterations(ways: list[Way]) -> list[int]:
    """All iterations of which a tile has a frame."""
    return sorted({i for way in ways for i in way.frames})


def _until(frames: Mapping[int, Tensor], i: int) -> Tensor:
    """The last frame up to iteration i."""
    return frames[max(kept for kept in frames if kept <= i)]

"""The interface of models that are trained to rate pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from latentiqa.errors import ConfigError
from latentiqa.training.latents import KeptLatents

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion


class Rater(nn.Module, ABC):
    """A model that is trained, in and around a backbone or by itself; a subclass gives `forward`.

    Args:
        backbone: it takes it for itself, as parts of it may be trained in place; None without one.
        design: what it is made of, a dataclass of plain values.
        seed: seeds weights that begin at random, and noise of pictures.

    Attributes:
        KEPT: names of buffers that a trained rater is saved with.
    """

    KEPT: frozenset[str] = frozenset()

    def __init__(self, backbone: Any, design: Any, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.design = design
        self.seed = seed

    @abstractmethod
    def forward(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Scores ``(B,)`` float32, higher is better.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            names: the pictures' names, which seed whatever is drawn for them.

        Raises:
            ConfigError: the sides are not what the backbone can halve.
        """

    def training_scores(self, image: Tensor, names: Sequence[str], step: int) -> Tensor:
        """Scores ``(B,)`` to learn from; of a rater that draws something anew at each step.

        Args:
            image: see `forward`.
            names: see `forward`.
            step: of the optimiser, so that a resumed training draws the same.
        """
        return self(image, names)

    @property
    def quality_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the map of quality that it draws; None if it draws none."""
        return None

    def both(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Scores ``(B,)`` and maps of quality ``(B, *quality_shape)``, from one pass.

        Args:
            image: see `forward`.
            names: see `forward`.
        """
        return self(image, names), None

    @abstractmethod
    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each part that is trained."""

    def trained_state(self) -> dict[str, Tensor]:
        """What `load_trained` makes this rater of, beside the backbone."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {k: v for k, v in self.state_dict().items() if k in trained or k in self.KEPT}

    def load_trained(self, state: dict[str, Tensor]) -> None:
        """Take over what `trained_state` gave of a rater of this design.

        Raises:
            ConfigError: it is of another design, or of another backbone.
        """
        own = self.trained_state()
        wrong = sorted(
            key
            for key in own.keys() | state.keys()
            if key not in own or key not in state or own[key].shape != state[key].shape
        )
        if wrong:
            raise ConfigError(
                f"the weights do not fit the design: {', '.join(wrong[:3])}"
                f"{', ...' if len(wrong) > 3 else ''}; build it as it was trained."
            )
        self.load_state_dict(state, strict=False)


class BackboneRater(Rater):
    """A rater around a backbone whose autoencoder is not trained; a subclass gives `encode`, too.

    Args:
        backbone: see `Rater`.
        design: see `Rater`.
        seed: see `Rater`.

    Attributes:
        kept: latents of pictures, which a training sets while it lasts.
    """

    def __init__(self, backbone: LatentDiffusion, design: Any, seed: int) -> None:
        super().__init__(backbone, design, seed)
        self.kept: KeptLatents | None = None

    def latents(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Scaled latents ``(B, C, h, w)`` of pictures, those that are kept or new ones.

        Args:
            image: see `forward`.
            names: see `forward`.

        Raises:
            ConfigError: see `forward`.
        """
        self.backbone.check_sides(image)
        if self.kept is None:
            return self.encode(image, names)
        return self.kept(image, names, self.encode)

    @abstractmethod
    def encode(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """New latents of pictures; see `latents`."""


def trained_parameters(part: nn.Module) -> int:
    """Number of its parameters that are trained."""
    return sum(p.numel() for p in part.parameters() if p.requires_grad)

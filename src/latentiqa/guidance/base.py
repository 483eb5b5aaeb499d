"""What every guidance offers to the trajectory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from latentiqa.errors import ConfigError
from latentiqa.guidance.decoder import Decoder
from latentiqa.recipe import UNRECORDED

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.trajectory import Guide


class Guidance(ABC):
    """A small frozen description of what corrects the steps of a trajectory."""

    @property
    def through_unet(self) -> bool:
        """Whether corrections differentiate through the U-Net; the trajectory keeps its graph."""
        return False

    def passes(self, t: int) -> int:
        """How often the step from timestep ``t`` is made; see `latentiqa.trajectory`."""
        return 1

    @abstractmethod
    def bind(self, image: Tensor, backbone: LatentDiffusion) -> Guide | None:
        """Prepare what depends on the pictures.

        Args:
            image: y, ``(B, 3, H, W)`` in [0, 1].
            backbone: the frozen model whose trajectory is guided.

        Returns:
            The trajectory's callback: step -> corrected clean-latent estimate ``(B, C, h, w)``;
            ``None`` where there is nothing to correct.
        """


@dataclass(frozen=True, kw_only=True)
class DecodingGuidance(Guidance):
    """A guidance that looks at decoded estimates: two options of how.

    Args:
        decoder: replaces the backbone's decoder for guidance: a folder with an autoencoder of the
            same latents in diffusers' format, such as TAESD (``madebyollin/taesd``) for Stable
            Diffusion 1 and 2. It is read from this disk, never downloaded.
        checkpointing: keep less for the backward pass and compute it again there: the
            autoencoder's and the U-Net's blocks hold only their inputs. Less memory, the same
            gradients, about a third more time; a psi with a network of its own is not changed.

    Raises:
        ConfigError: a value is outside its range.
    """

    decoder: Decoder | str | None = None
    checkpointing: bool = field(default=False, metadata=UNRECORDED)

    def __post_init__(self) -> None:
        if not isinstance(self.checkpointing, bool):
            raise ConfigError(
                f"guidance.checkpointing={self.checkpointing!r}: expected true or false."
            )
        if isinstance(self.decoder, str):
            object.__setattr__(self, "decoder", Decoder(self.decoder))

    def prepare(self, image: Tensor, backbone: LatentDiffusion) -> Callable[[Tensor], Tensor]:
        """Switch checkpointing on or off, and choose the decoder D.

        Args:
            image: y, ``(B, 3, H, W)``.
            backbone: the frozen model.

        Returns:
            D: scaled latents ``(B, C, h, w)`` -> pictures ``(B, 3, H, W)``.

        Raises:
            ConfigError: the decoder is one for other latents.
        """
        backbone.checkpoint(self.checkpointing)
        if self.decoder is None:
            return backbone.decode
        assert isinstance(self.decoder, Decoder)
        return self.decoder.load(image, backbone, self.checkpointing)

"""A prior of CLIP and prompts of quality, as LIQE and MS-LIQE are.

- LIQE: Zhang et al., "Blind Image Quality Assessment via Vision-Language Correspondence: A
  Multitask Learning Perspective", CVPR 2023. Its prompts also name scenes and distortions.
- MS-LIQE: the improved model of those who wrote the paper on MAP estimation (Zhang et al., arXiv
  2403.06406), with prompts of quality alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from latentiqa.data.views import Views
from latentiqa.enhance.prior import Prior, Quality
from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.hashing import folder_digest
from latentiqa.hub import ModelFiles
from latentiqa.perceptual.vit import CLIP, VisionTransformer
from latentiqa.perceptual.vit import FILES as VISION_FILES
from latentiqa.perceptual.weights import load_whole

FILES = (
    *VISION_FILES,
    ("vocab.json", "tokenizer.json"),
    ("merges.txt", "tokenizer.json"),
    "tokenizer_config.json",
)
"""What is read of a CLIP's folder in transformers' format: both towers, and the tokenizer."""


class LIQE(nn.Module):
    """Which of C prompts, from the worst quality to the best, CLIP finds for a picture.

    ``q = sum_c c p_c`` with ``p = softmax(l / temperature)`` in [1, C], l the mean over the views
    of the logits that CLIP gives a view and the prompts: pooling is between the linear part of the
    head and the softmax. The values of MS-LIQE: five prompts, a temperature of 2, `MultiScale`
    views with their side 224. The prompts' embeddings are computed once. In float32, always in eval
    mode, with a gradient with respect to the pictures alone.

    Args:
        folder: of a CLIP, holds `FILES`. MS-LIQE's are trained on human scores; of a CLIP that is
            not, q is zero-shot.
        prompts: C of them, two or more.
        temperature: > 0.
        views: what is seen of a picture; those of another size than the model's are brought to it.

    Raises:
        ConfigError: the model is not a CLIP.
        LatentiqaError: the files are broken.
    """

    text: Tensor
    grades: Tensor

    def __init__(
        self, folder: Path, prompts: Sequence[str], temperature: float, views: Views
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.views = views
        self.vision = VisionTransformer(CLIP, folder, ("embedding",))
        text = normalize(embed(folder, prompts), dim=-1)
        self.register_buffer("text", logit_scale(folder).exp() * text)
        self.register_buffer("grades", torch.arange(1.0, 1 + len(prompts)))
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Scores of pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].

        Returns:
            ``(B,)`` float32 in [1, C], higher is better.
        """
        with torch.autocast(image.device.type, enabled=False):
            p = (self.logits(image.float()) / self.temperature).softmax(dim=1)
            return p @ self.grades

    def logits(self, image: Tensor) -> Tensor:
        """CLIP's logits of pictures ``(B, 3, H, W)`` and the prompts, ``(B, C)``: mean of views."""
        return torch.stack([self._of_views(self.views(one)).mean(dim=0) for one in image])

    def _of_views(self, views: Tensor) -> Tensor:
        return normalize(self.vision(views)["embedding"], dim=-1) @ self.text.T


@torch.no_grad()
def embed(folder: Path, prompts: Sequence[str]) -> Tensor:
    """CLIP's embeddings ``(C, D)`` of texts.

    Raises:
        LatentiqaError: the files are broken.
    """
    said = f"CLIP folder {folder}"
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise LatentiqaError(f"{said} could not be loaded: {error}. Fetch it again.") from error
    tower = load_whole(CLIPTextModelWithProjection, folder, said)
    tokens = tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
    return tower.eval()(**tokens).text_embeds


def logit_scale(folder: Path) -> Tensor:
    """The logarithm of what CLIP multiplies cosines by, a scalar.

    Raises:
        LatentiqaError: it is not there.
    """
    path = folder / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("logit_scale").float()
    except (OSError, SafetensorError) as error:
        raise LatentiqaError(
            f"{path}: no logit_scale could be read ({error}); expected both towers of a CLIP."
        ) from error


@dataclass(frozen=True, kw_only=True)
class LIQEPrior(Prior):
    """`LIQE` as a prior.

    Args:
        source: a folder in transformers' format, or a hub id (``owner/name``).
        views: see `LIQE`.
        prompts: see `LIQE`.
        temperature: see `LIQE`.
        revision: branch, tag or commit on the hub.
        download_gb: size of the download where one is needed, said before it starts.

    Raises:
        ConfigError: a value is outside its range, or files are missing in the folder.
    """

    source: str
    views: Views
    prompts: Sequence[str]
    temperature: float = 2.0
    revision: str | None = None
    download_gb: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.prompts, str) or len(self.prompts) < 2:
            raise ConfigError(
                f"prior.prompts={self.prompts}: expected two or more, from the worst to the best."
            )
        if not self.temperature > 0:
            raise ConfigError(f"prior.temperature={self.temperature}: expected a number > 0.")
        if not isinstance(self.views, Views):
            raise ConfigError(
                f"prior.views={type(self.views).__name__}: expected views of "
                "latentiqa.data.views, or MultiScale."
            )
        files = self._files
        if files.is_folder and (absent := files.absent(Path(self.source))):
            raise ConfigError(
                f"prior.source={self.source}: {', '.join(absent)} not found; expected a CLIP in "
                "transformers' format with safetensors weights and its tokenizer."
            )
        if not files.is_folder and not files.is_hub_id:
            raise ConfigError(
                f"prior.source={self.source}: no such folder, and not a hub id (owner/name)."
            )

    @property
    def title(self) -> str:
        """``liqe``, and the name of the folder or model."""
        return f"liqe {Path(self.source).name}"

    def identity(self) -> str | None:
        """See `Prior`: the files of a folder; the hub's are named by the description."""
        return folder_digest(self.source) if self._files.is_folder else None

    def load(self, device: torch.device, *, differentiable: bool = True) -> Quality:
        """See `Prior`.

        Raises:
            ConfigError: the model is not a CLIP.
            LatentiqaError: the files cannot be fetched, or are broken.
        """
        folder = self._files.folder("CLIP", "give its folder as prior.source")
        return LIQE(folder, self.prompts, self.temperature, self.views).to(device)

    @property
    def _files(self) -> ModelFiles:
        return ModelFiles(self.source, FILES, self.revision, self.download_gb)

"""What `latentiqa score explain=true` writes of each picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentiqa.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.data.manifest import Record
    from latentiqa.genziqa.explain import Maps
    from latentiqa.genziqa.rater import PromptRater
    from latentiqa.metric import Metric


def rater_of(metric: Metric) -> PromptRater:
    """The rater whose attention is shown.

    Raises:
        ConfigError: the run is another method's, reads no attention, or sees crops.
    """
    from latentiqa.genziqa.rater import PromptRater

    rater: Any = getattr(metric.scorer.extractors[0], "rater", None)
    if not isinstance(rater, PromptRater):
        raise ConfigError(
            f"explain=true with a run of {metric.method}: expected one of method=genziqa."
        )
    rater.check_reads("explain=true")
    if metric.views.number != 1:
        raise ConfigError(
            "explain=true with several views of a picture: expected a run with one, such as "
            "views=square."
        )
    return rater


def prepare(rater: PromptRater, attributes: Any) -> None:
    """Let a rater tell other attributes than those of its run; None: those.

    Raises:
        ConfigError: they are not pairs of words by name.
    """
    if attributes is None:
        return
    if not isinstance(attributes, Mapping):
        raise ConfigError(f"attributes={attributes!r}: expected pairs of words by name.")
    rater.design = replace(rater.design, attributes=attributes)


def explain_picture(metric: Metric, path: Path, folder: Path, most: int) -> dict[str, float]:
    """Write heat maps and attributes of a picture.

    Args:
        metric: of a run that `rater_of` accepts.
        path: of the picture, readable.
        folder: where to.
        most: pixels of a picture.

    Returns:
        Attributes by name.
    """
    from latentiqa.data.images import read_image
    from latentiqa.genziqa.explain import heat_maps

    rater, name = rater_of(metric), path.name
    image = metric.views(read_image(path, most), name).to(metric.device)
    with metric.scorer.extractors[0].precision_of(image):  # as it scores
        scores = rater.attributes(image, [name])
        good, bad = heat_maps(rater, image, name)
    attributes = {key: score.item() for key, score in scores.items()}
    write_explanation(folder, image[0].cpu(), good, bad, attributes)
    return attributes


def explanation_folders(records: Sequence[Record], folder: Path) -> dict[Path, Path]:
    """A folder for each picture by its path; those of one name are numbered."""
    seen: Counter[str] = Counter()
    folders = {}
    for path in (record.path for record in records):
        seen[path.name] += 1
        number = seen[path.name]
        folders[path] = folder / (path.name if number == 1 else f"{path.name}-{number}")
    return folders


def write_explanation(
    folder: Path, picture: Tensor, good: Maps, bad: Maps, attributes: dict[str, float]
) -> None:
    """Write the figures and the maps of one picture ``(3, H, W)``."""
    from safetensors.torch import save

    from latentiqa.files import write_atomic
    from latentiqa.genziqa.explain import mean_map
    from latentiqa.report.figures import save_overlays, save_pictures

    means = {"good": mean_map(good), "bad": mean_map(bad)}
    shown = picture.permute(1, 2, 0)
    save_overlays(folder / "summary.png", shown, means, attributes)
    # Of another size than both, it has a scale, and a figure, of its own.
    difference = {"bad - good": means["bad"] - means["good"]}
    save_overlays(folder / "difference.png", shown, difference, {})
    save_pictures(folder / "good.png", _grid(good, other=bad))
    save_pictures(folder / "bad.png", _grid(bad, other=good))
    tensors = {
        f"{name}/{t}/{layer}": one.contiguous()
        for name, maps in (("good", good), ("bad", bad))
        for t, layers in maps.items()
        for layer, one in layers.items()
    }
    tensors |= {f"{name}/mean": one.contiguous() for name, one in means.items()}
    write_atomic(folder / "maps.safetensors", save(tensors))


def _grid(maps: Maps, other: Maps) -> dict[str, dict[str, Any]]:
    """A row a layer, in colours of one scale for both prompts, and of each timestep its map."""
    from latentiqa.report.figures import coloured

    rows: dict[str, dict[str, Any]] = {}
    for layer in next(iter(maps.values())):
        all_of_it = [one[t][layer] for one in (maps, other) for t in one]
        low = min(one.min().item() for one in all_of_it)
        high = max(one.max().item() for one in all_of_it)
        rows[layer] = {
            f"t={t}": coloured(layers[layer], low, high if high > low else low + 1)
            for t, layers in maps.items()
        }
    return rows

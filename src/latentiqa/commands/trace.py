"""latentiqa trace: what a guided trajectory does to one picture.

Usage: latentiqa trace PICTURE [group=choice ...] [key=value ...]

Takes the groups of `latentiqa train`; nothing need be trained. At each timestep the estimate of
the clean picture is compared with the picture itself, in pixels, latents and psi (the group
perceptual), and rated by a finished run: run=FOLDER, or one inside the package. Beside the
guided trajectory stands the same one without guidance, from the same noise.

  latentiqa trace photo.jpg timesteps=lgdm
  latentiqa trace photo.jpg experiment=pmg_both run=runs/pmg_both-0123456789ab output=photo/

Writes into output=: trace.csv and trajectory.png (over timesteps: the estimate as predicted and as
corrected), and principal.png: three principal components of the maps of up to six of the layers
as colours; a layer's timesteps share components and scale. Prints the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig

from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import (
    LGDM_PARTS,
    check_method,
    check_values,
    device_of,
    one_picture,
    quieten,
)
from latentiqa.commands.trained import find_run
from latentiqa.errors import ConfigError
from latentiqa.runs import write_csv

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.trace import Trace

POSITIONAL = "input"

Value = TypeVar("Value")

MOST_LAYERS = 6
"""Rows of principal.png."""

TITLES = {
    "pixels": "RMS of y - D(z)",
    "latents": "RMS of E(y) - z",
    "psi": "squared psi distance",
    "score": "score of D(z)",
}
"""Of the panels."""


def run(config: DictConfig) -> Done:
    """Trace one picture; see the module's docstring."""
    path = one_picture(config)
    check_values(config)
    method = check_method(config)
    if not (method.backbone and method.lgdm):
        raise ConfigError(f"method.name={config.method.name}: there is no trajectory but lgdm's.")
    if method.views.number != 1:
        raise ConfigError("views: expected one view of a picture, for example views=square.")
    psi = None if config.perceptual is None else build(config.perceptual)
    scored_by, device = find_run(config.run, config.paths.runs), device_of(config)
    if method.lgdm["timesteps"].values == (0,):
        raise ConfigError("timesteps.values=[0]: expected a timestep above 0.")

    quieten()  # first: some advice is given at import
    from latentiqa.data.images import read_image
    from latentiqa.guidance import NoGuidance
    from latentiqa.methods.lgdm import LGDM
    from latentiqa.metric import load_metric
    from latentiqa.trace import measure, trace

    image = method.views(read_image(path, config.data.max_pixels), path.name).to(device)
    backbone, metric = method.backbone.load(device), load_metric(scored_by.folder, device)
    timesteps, layers, guidance = (method.lgdm[key] for key in LGDM_PARTS)
    guidances = {"no guidance": NoGuidance()} | {config.choices.guidance: guidance}
    if isinstance(guidance, NoGuidance):
        guidances = {"no guidance": guidance}

    def measured(latents: Iterable[Tensor]) -> dict[str, list[float]]:
        return measure(backbone, image, [*latents], psi, metric, path.name)

    rows: list[dict[str, Any]] = []
    panels: dict[str, dict[str, list[float]]] = {key: {} for key in TITLES}
    for title, chosen in guidances.items():
        lgdm = LGDM(backbone, timesteps, layers, chosen, prompt=config.prompt, seed=config.seed)
        found = trace(lgdm, image, path.name)
        lines = {f"{title}, predicted": found.predicted, f"{title}, corrected": found.corrected}
        if chosen == NoGuidance():  # which corrects nothing
            lines = {title: found.predicted}
        for line, estimates in lines.items():
            figures = measured(estimates.values())
            for key, values in figures.items():
                panels[key][line] = values
            for t, *values in zip(estimates, *figures.values(), strict=True):
                figure = dict(zip(figures, values, strict=True))
                rows.append({"trajectory": line, "timestep": t} | figure)
    # What the best of estimates would have, and the picture's own score.
    for key, value in measured([backbone.encode(image)]).items():
        panels[key] |= {"D(E(y))": value} if key != "latents" else {}
    panels["score"]["y"] = metric(image, [path.name]).tolist()
    folder = Path(config.output)
    write_csv(folder / "trace.csv", rows, list(rows[0]))
    draw(folder, image, found, panels)
    print(*(folder / name for name in ("trace.csv", "trajectory.png", "principal.png")), sep="\n")
    return Done()


def draw(
    folder: Path, image: Tensor, found: Trace, panels: dict[str, dict[str, list[float]]]
) -> None:
    """Write both figures."""
    from latentiqa.report.figures import save_panels, save_pictures
    from latentiqa.trace import principal_colours

    shown = {TITLES[key]: lines for key, lines in panels.items() if lines}
    save_panels(folder / "trajectory.png", [*found.predicted], shown, "timestep")
    picture = image[0].permute(1, 2, 0).cpu()
    rows = {}
    for layer in spread(list(next(iter(found.maps.values()))), MOST_LAYERS):
        colours = principal_colours({t: maps[layer] for t, maps in found.maps.items()})
        rows[layer] = {"y": picture, **{f"t={t}": x for t, x in colours.items()}}
    save_pictures(folder / "principal.png", rows)


def spread(values: Sequence[Value], most: int) -> list[Value]:
    """At most so many of the values, evenly, the first and the last among them.

    Example:
        >>> spread(list("abcdefg"), 3), spread(list("ab"), 3)
        (['a', 'd', 'g'], ['a', 'b'])
    """
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]

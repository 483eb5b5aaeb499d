"""What each layer knows at each timestep alone: validation SRCC of a head on its features."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from torch import Tensor

from latentiqa.errors import DataError
from latentiqa.heads import RidgeHead
from latentiqa.report.tables import Table, cell

Scores = dict[str, dict[int, float | None]]
"""Layer -> timestep -> validation SRCC, in the order of execution and of the trajectory."""


def scores_of_layers(
    features: Sequence[str],
    read: Callable[[str, Sequence[str]], Tensor],
    y_train: Tensor,
    y_val: Tensor,
) -> Scores:
    """Fit a ridge on each layer at each timestep; the test part is not asked for.

    Args:
        features: names of LGDM's features, ``<timestep>/<layer>/<statistic>``; others are left
            out.
        read: part (``train`` or ``val``) and names -> their features ``(N, F)`` or ``(N, K, F)``.
        y_train: targets of the training part, ``(N,)`` in [0, 1].
        y_val: targets of the validation part.

    Returns:
        Each SRCC is that of the alpha which is best on validation, and None where it is undefined.

    Raises:
        DataError: none of the features is LGDM's.
    """
    groups: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name in features:
        t, _, rest = name.partition("/")
        if t.isdecimal():
            groups[rest.rpartition("/")[0], int(t)].append(name)
    if not groups:
        raise DataError(
            "the run has no features of layers and timesteps; expected one of method=lgdm"
        )
    scores: Scores = defaultdict(dict)
    for (layer, t), names in groups.items():
        head = RidgeHead(refit=False)
        try:
            fit = head.fit(read("train", names), y_train, read("val", names), y_val)
        except DataError:  # the same of every picture, such as the spread of a map of one pixel
            scores[layer][t] = None
        else:
            scores[layer][t] = fit["val_srcc"]
    return dict(scores)


def layers_table(scores: Scores, notes: Sequence[str] = ()) -> Table:
    """A row a layer, a column a timestep.

    Example:
        >>> layers_table({"mid.attn.0": {100: 0.5, 10: None}}).rows
        [['mid.attn.0', '0.500', '–']]
    """
    timesteps = list(dict.fromkeys(t for row in scores.values() for t in row))
    rows = [
        [layer, *(cell("srcc", row.get(t)) for t in timesteps)] for layer, row in scores.items()
    ]
    about = "validation SRCC of a ridge on one layer at one timestep, alpha chosen on validation"
    header = ["Layer", *(f"t={t}" for t in timesteps)]
    return Table(header, rows, [False, *[True] * len(timesteps)], [about, *notes])

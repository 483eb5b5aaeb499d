from __future__ import annotations

import pytest
import torch

from latentiqa.errors import DataError
from latentiqa.report.layers import layers_table, scores_of_layers


def test_each_layer_and_timestep_is_fitted_alone():
    """Of two layers at two timesteps one cell holds the target, one noise, one nothing at all."""
    generator = torch.Generator().manual_seed(0)
    y = {"train": torch.rand(40, generator=generator), "val": torch.rand(20, generator=generator)}
    asked = []

    def read(part, names):
        asked.append((part, tuple(names)))
        n, columns = len(y[part]), []
        for name in names:
            t, layer, _ = name.split("/")
            noise = torch.randn(n, 3, generator=generator)
            known = {("10", "up"): y[part][:, None] + 0 * noise, ("10", "mid"): 0 * noise}
            columns.append(known.get((t, layer), noise))
        return torch.cat(columns, dim=1)

    features = [f"{t}/{layer}/{s}" for t in (100, 10) for layer in ("mid", "up") for s in "ab"]
    scores = scores_of_layers([*features, "nss/scale0"], read, y["train"], y["val"])
    assert list(scores) == ["mid", "up"]
    assert list(scores["up"]) == [100, 10]
    assert scores["up"][10] == pytest.approx(1.0)
    assert abs(scores["up"][100]) < 0.7
    assert scores["mid"][10] is None
    assert {part for part, _ in asked} == {"train", "val"}
    assert ("val", ("10/up/a", "10/up/b")) in asked
    table = layers_table(scores, ["a caveat"])
    assert table.header == ["Layer", "t=100", "t=10"]
    assert table.rows[1][2] == "1.000"
    assert table.rows[0][2] == "–"
    assert table.notes[-1] == "a caveat"


def test_a_run_without_layers_is_refused():
    with pytest.raises(DataError, match="no features of layers"):
        scores_of_layers(["nss/scale0"], lambda *_: torch.zeros(3, 1), torch.rand(3), torch.rand(3))

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from command_line import places, succeed
from miniatures import write_biq2021

README = Path(__file__).parents[2] / "experiments" / "ten_splits" / "README.md"


def test_one_command_gives_the_table_of_medians(micro, tmp_path):
    """README's own, on two splits of a miniature."""
    [block] = re.findall(r"```bash\n(.*?)```", README.read_text(), flags=re.DOTALL)
    train, report = (shlex.split(part) for part in block.replace("\\\n", " ").split("&&"))
    values = {
        "split": "range(0,2)",
        "dataset.root": str(write_biq2021(tmp_path / "biq", train=24, test=6)),
        "output": str(tmp_path / "table.md"),
    }

    def here(words: list[str]) -> list[str]:
        keys = [word.partition("=")[0] for word in words]
        return [f"{k}={values[k]}" if k in values else w for k, w in zip(keys, words, strict=True)]

    assert train[:2] == [report[0], "train"]
    succeed("train", *here(train[2:]), *micro, *places(tmp_path))
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/results.json")]
    assert sorted(result["config"]["split"] for result in results) == [0, 1]
    assert sorted(result["extracted"] for result in results) == [0, 30]
    assert all(result["n"] == {"train": 21, "val": 3, "test": 6} for result in results)

    runs, *options = here(report[2:])
    pattern = Path(runs).relative_to("runs")
    folders = [str(folder) for folder in (tmp_path / "runs").glob(str(pattern))]
    succeed("report", *folders, *options)
    header, _, row, *_ = (tmp_path / "table.md").read_text().splitlines()
    cells = dict(zip(*(line.strip("| ").split(" | ") for line in (header, row)), strict=True))
    assert cells["Run"] == "lgdm_tiny_splits"
    assert cells["Splits"] == "2"
    assert re.fullmatch(r"-?\d\.\d{3} \[-?\d\.\d{3}, -?\d\.\d{3}\]", cells["SRCC"])

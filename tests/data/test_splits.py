from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.splits import PARTS, Split, check_disjoint, load_split, make_split
from latentiqa.errors import ConfigError, DataError


def manifest(contents: int = 10, per_content: int = 4, parts: str = "") -> Manifest:
    """Pictures of several contents; ``parts`` has a letter (t, v, e) a content."""
    letters = {"t": "train", "v": "val", "e": "test"}
    records = tuple(
        Record(
            name=f"c{c}_{i}.png",
            path=Path(f"c{c}_{i}.png"),
            mos=float(i),
            reference=f"c{c}",
            part=letters[parts[c]] if parts else None,
        )
        for c in range(contents)
        for i in range(per_content)
    )
    return Manifest("set", records, (0, per_content), True)


def sizes(split: Split) -> list[int]:
    return [len(getattr(split, part)) for part in PARTS]


@pytest.mark.parametrize("seed", range(5))
def test_seeded_split_covers_all_and_keeps_contents_together(seed):
    data = manifest()
    split = make_split(data, seed)
    assert sorted(split.train + split.val + split.test) == sorted(data.names)
    assert sizes(split) == [28, 4, 8]
    contents = [{data.by_name[n].reference for n in getattr(split, part)} for part in PARTS]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 10
    assert split.kind == f"seed-{seed}"


def test_seeds_differ_and_repeat():
    hashes = [make_split(manifest(), seed).hash for seed in range(10)]
    assert len(set(hashes)) == 10
    assert hashes == [make_split(manifest(), seed).hash for seed in range(10)]


def test_row_order_does_not_matter():
    data = manifest()
    backwards = replace(data, records=data.records[::-1])
    assert make_split(backwards, 3) == make_split(data, 3)


def test_a_split_is_the_same_in_every_process():
    code = (
        "from pathlib import Path\n"
        "from latentiqa.data import Manifest, Record, make_split\n"
        "r = [Record(f'{i}', Path('x'), i, reference=str(i % 7)) for i in range(30)]\n"
        "print(make_split(Manifest('s', tuple(r), (0, 30), True), 5).hash)"
    )
    outputs = set()
    for seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, "-c", code]
        outputs.add(
            subprocess.run(command, env=environment, check=True, capture_output=True).stdout
        )
    # Written down, because a split that changes between versions breaks published numbers.
    assert outputs == {b"4519f7b88e3b\n"}


@pytest.mark.parametrize("contents", [3, 4, 5, 17])
@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.2), (0.98, 0.01, 0.01), (0.01, 0.01, 0.98)])
def test_cuts_are_nearest_among_all_possible_ones(contents, fractions):
    """Against brute force over both cuts, on contents of one size."""
    split = make_split(manifest(contents, per_content=2), 0, fractions)
    total = 2 * contents
    first = min(range(1, contents - 1), key=lambda place: abs(2 * place - fractions[0] * total))
    second = min(
        range(first + 1, contents), key=lambda place: abs(2 * place - sum(fractions[:2]) * total)
    )
    assert sizes(split) == [2 * first, 2 * (second - first), 2 * (contents - second)]
    assert min(sizes(split)) > 0


def test_pictures_without_reference_are_their_own_content():
    records = tuple(Record(f"{i}.png", Path(f"{i}.png"), i) for i in range(100))
    assert sizes(make_split(Manifest("set", records, (0, 99), True), 0)) == [70, 10, 20]


def test_official_parts_are_kept():
    split = make_split(manifest(5, 2, "tvtee"), "official")
    assert split.train == ("c0_0.png", "c0_1.png", "c2_0.png", "c2_1.png")
    assert split.val == ("c1_0.png", "c1_1.png")
    assert sizes(split) == [4, 2, 4]
    assert split.kind == "official"


def test_official_without_val_draws_it_from_train_by_content():
    data = manifest(10, 4, "tttttttt" + "ee")
    split = make_split(data, "official", validation_fraction=0.25)
    assert sizes(split) == [24, 8, 8]
    assert len({data.by_name[name].reference for name in split.val}) == 2
    assert split == make_split(data, "official", validation_fraction=0.25)


@pytest.mark.parametrize("parts", ["", "tttt", "eeee", "vvee"])
def test_no_official_split(parts):
    with pytest.raises(DataError, match=r"no official split .*use a seed: split=0"):
        make_split(manifest(4, 2, parts), "official")


def test_official_parts_that_share_a_content_are_refused():
    data = manifest(4, 2, "tvee")
    leaking = (replace(data.records[0], reference="c3"), *data.records[1:])
    with pytest.raises(DataError, match=r"reference c3 is in both train and test"):
        make_split(replace(data, records=leaking), "official")


def test_check_disjoint_finds_names_references_and_strangers():
    data = manifest(3, 2)
    good = Split(("c0_0.png",), ("c1_0.png",), ("c2_0.png",), "by hand")
    check_disjoint(data, good)
    with pytest.raises(
        DataError, match=r"(picture c0_0.png|reference c0) is in both train and val"
    ):
        check_disjoint(data, replace(good, val=("c0_0.png",)))
    with pytest.raises(DataError, match=r"reference c0 is in both train and test"):
        check_disjoint(data, replace(good, test=("c0_1.png",)))
    with pytest.raises(DataError, match=r"not in the dataset: x.png"):
        check_disjoint(data, replace(good, test=("x.png",)))


def test_too_few_contents():
    with pytest.raises(DataError, match="2 distinct contents cannot make 3 disjoint parts"):
        make_split(manifest(2), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": -1}, "split=-1"),
        ({"split": True}, "split=True"),
        ({"split": "random"}, "split='random': expected a seed .* or official"),
        ({"split": 0, "fractions": (0.8, 0.2)}, "fractions="),
        ({"split": 0, "fractions": (0.8, 0.2, 0.2)}, "fractions="),
        ({"split": 0, "fractions": (0.8, 0.0, 0.2)}, "fractions="),
        ({"split": "official", "validation_fraction": 1.0}, "validation_fraction=1.0"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_split(manifest(), **arguments)


def test_json_round_trip_and_tampering():
    split = make_split(manifest(), 0)
    text = split.to_json()
    assert Split.from_json(text) == split
    edited = json.loads(text)
    edited["test"] = edited["test"][1:]
    with pytest.raises(DataError, match=f"its file says {split.hash}"):
        Split.from_json(json.dumps(edited))
    for broken in (text[:50], "[]", "{}", "null"):
        with pytest.raises(DataError, match="not a split"):
            Split.from_json(broken)


def saved(folder: Path, split: Split) -> Path:
    path = folder / "split.json"
    path.write_text(split.to_json())
    return path


@pytest.mark.parametrize("which", [0, 7, "official"])
def test_a_saved_split_is_what_made_it(tmp_path, which):
    data = manifest(10, 4, "tttttttt" + "ee")
    options = {"fractions": (0.5, 0.25, 0.25), "validation_fraction": 0.25}
    split = make_split(data, which, **options)
    loaded = load_split(saved(tmp_path, split), data)
    assert loaded == split
    assert make_split(data, **loaded.made_by) == split


@pytest.mark.parametrize(
    "made_by",
    [
        *({}, {"split": 1}, {"split": "x"}, {"seed": 0}, {"split": 0, "fractions": ["a"] * 3}),
        {"split": 0, "fractions": [0.7, 0.1, 0.2]},
    ],
)
def test_lists_that_nothing_makes_are_only_saved(tmp_path, made_by):
    """A selection, a dataset that has grown, somebody's own."""
    split = replace(make_split(manifest(), 0), made_by=made_by)
    loaded = load_split(saved(tmp_path, split), manifest(contents=11))
    assert (loaded.kind, loaded.made_by) == ("saved", {})
    assert loaded.hash == split.hash


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"test": ("c3_0.png", "c0_1.png")},
            r"reference c0 is in both train and test of the seed-0 split \(c0_0.png, c0_1.png\)",
        ),
        ({"val": ("c0_0.png",)}, r"picture c0_0.png is in both train and val"),
        ({"val": ("c2_0.png", "x.png")}, r"1 names are not in the dataset: x.png"),
        ({"val": ("c2_0.png", "c2_0.png")}, r"occur more than once: c2_0.png"),
        ({"val": ()}, r"no pictures"),
    ],
)
def test_a_saved_split_that_leaks_or_is_of_another_dataset_is_refused(tmp_path, parts, message):
    good = Split(("c0_0.png",), ("c2_0.png",), ("c3_0.png",), "seed-0")
    path = saved(tmp_path, good)
    assert load_split(path, manifest()).train == good.train
    saved(tmp_path, replace(good, **parts))
    with pytest.raises(DataError, match=rf"split.json: set: .*{message}.*`latentiqa split` writes"):
        load_split(path, manifest())


def test_files_that_hold_no_split(tmp_path):
    path = saved(tmp_path, make_split(manifest(), 0))
    path.write_text(path.read_text().replace('"c0_0.png"', '"c0_9.png"', 1))
    with pytest.raises(DataError, match=r"split.json: .* edited or cut short"):
        load_split(path, manifest())
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match=r"split.json: cannot be read"):
        load_split(path, manifest())
    with pytest.raises(DataError, match=r"gone.json: cannot be read .*No such file"):
        load_split(tmp_path / "gone.json", manifest())

from __future__ import annotations

import shutil

import pytest
from miniatures import write_biq2021

from latentiqa.data.readers.biq2021 import read_biq2021
from latentiqa.data.splits import make_split
from latentiqa.errors import DataError

TRAIN, TEST = "Train (Images and MOS).csv", "Test (Images and MOS).csv"


def test_reads_the_authors_layout(tmp_path):
    manifest = read_biq2021(str(write_biq2021(tmp_path, train=6, test=3)))
    assert manifest.dataset == "biq2021"
    assert manifest.mos_range == (0, 1)
    assert manifest.higher_is_better
    assert [record.part for record in manifest] == ["train"] * 6 + ["test"] * 3
    first = manifest.by_name["ss01 (1).jpg"]
    assert first.path == tmp_path / "Images" / "ss01 (1).jpg"
    assert f"ss01 (1).jpg,{first.mos:.4f},," in (tmp_path / TRAIN).read_text().splitlines()
    assert make_split(manifest, "official").test == tuple(sorted(manifest.names[6:]))


@pytest.mark.parametrize("absent", [".", "Images", TRAIN, TEST])
def test_missing_parts_of_the_layout_say_where_to_get_it(tmp_path, absent):
    root = write_biq2021(tmp_path / "biq")
    target = root / absent
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(DataError, match=r"not found; expected .*Images/.*nisarahmedrana/BIQ2021"):
        read_biq2021(root)


@pytest.mark.parametrize(
    ("table", "lines", "message"),
    [
        (TRAIN, "Image,MOS\nss01 (1).jpg,0.5", r"Train .*csv, line 1: .*Image Name,MOS.*Image,MOS"),
        (TEST, "Image Name,MOS\nss02 (8).jpg,nan", r"Test .*csv, line 2: column MOS is 'nan'"),
        (TEST, "Image Name,MOS\nss02 (8).jpg,1.5", r"ss02 \(8\).jpg is 1.5, outside"),
        (TEST, "Image Name,MOS\nss01 (1).jpg,0.5", r"more than once: ss01 \(1\).jpg"),
        (TEST, "Image Name,MOS\ngone (1).jpg,0.5", r"1 of 7 image files are missing: .*gone"),
        (TEST, "", r"Test .*csv: the file is empty"),
    ],
)
def test_broken_tables(tmp_path, table, lines, message):
    root = write_biq2021(tmp_path)
    (root / table).write_text(lines)
    with pytest.raises(DataError, match=message):
        read_biq2021(root)

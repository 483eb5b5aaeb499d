from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from miniatures import write_biq2021

from latentiqa.data.check import Findings, check_pictures
from latentiqa.data.readers.biq2021 import read_biq2021


@pytest.fixture
def manifest(tmp_path):
    return read_biq2021(write_biq2021(tmp_path, train=6, test=3))


def copy(manifest, of: int, to: int) -> tuple[str, str]:
    names = manifest.names[of], manifest.names[to]
    shutil.copy(*(manifest.by_name[name].path for name in names))
    return names


def test_nothing_is_found_where_nothing_is_wrong(manifest):
    findings = check_pictures(manifest)
    assert findings == Findings([], [], [])


def test_copies_are_leaks_where_a_split_parts_them(manifest):
    within, across = copy(manifest, 0, 1), copy(manifest, 2, 7)
    findings = check_pictures(manifest)
    assert findings.copies == [within, across]
    assert findings.leaks == [across]


def test_without_official_parts_contents_are_what_is_kept_together(manifest):
    pair, parted = copy(manifest, 0, 7), copy(manifest, 1, 8)
    records = [replace(record, part=None) for record in manifest]
    for name in pair:
        i = manifest.names.index(name)
        records[i] = replace(records[i], reference="one")
    findings = check_pictures(replace(manifest, records=tuple(records)))
    assert findings.copies == [pair, parted]
    assert findings.leaks == [parted]


def test_unreadable_pictures_are_listed(manifest):
    path = manifest.records[4].path
    path.write_text("no picture")
    steps = []
    findings = check_pictures(manifest, workers=1, advance=lambda: steps.append(1))
    assert [image.path for image in findings.unreadable] == [path]
    assert len(steps) == len(manifest)

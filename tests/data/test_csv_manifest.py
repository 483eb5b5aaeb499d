from __future__ import annotations

import pytest
from miniatures import write_csv

from latentiqa.data.csv_manifest import read_csv
from latentiqa.errors import ConfigError, DataError


def test_reads_paths_scores_and_the_range_of_the_file(tmp_path):
    manifest = read_csv(write_csv(tmp_path, count=3))
    assert manifest.dataset == "scores"
    assert [(r.name, r.path, r.mos) for r in manifest] == [
        (f"p{i}.png", tmp_path / f"p{i}.png", i) for i in range(3)
    ]
    assert manifest.mos_range == (0, 2)
    assert [manifest.target(r.mos) for r in manifest] == [0, 0.5, 1]


def test_reads_references_parts_and_other_columns(tmp_path):
    rows = "p0.png,1,sky,train,jpeg\np1.png,2,sky,validation,blur\np2.png,3,,test,"
    table = write_csv(tmp_path, 3, "path,mos,ref,split,kind", rows)
    manifest = read_csv(table, mos_range=[0, 5], higher_is_better=False, name="mine")
    assert manifest.dataset == "mine"
    assert [r.reference for r in manifest] == ["sky", "sky", None]
    assert [r.part for r in manifest] == ["train", "val", "test"]
    assert [r.attributes for r in manifest] == [{"kind": "jpeg"}, {"kind": "blur"}, {"kind": ""}]
    assert manifest.target(1) == pytest.approx(0.8)


def test_relative_paths_start_from_root_and_use_forward_slashes(tmp_path):
    write_csv(tmp_path / "pictures" / "sub", 2)
    table = tmp_path / "lists" / "scores.csv"
    table.parent.mkdir()
    table.write_text(f"path,mos\nsub\\p0.png,1\n{tmp_path}/pictures/sub/p1.png,2\n")
    manifest = read_csv(table, root=tmp_path / "pictures")
    assert manifest.names == ("sub/p0.png", f"{tmp_path}/pictures/sub/p1.png")


def test_tolerates_bom_crlf_blank_lines_and_quotes(tmp_path):
    table = write_csv(tmp_path, 2)
    (tmp_path / "p1.png").rename(tmp_path / "a, b (1).png")
    table.write_bytes(
        '\ufeffpath, mos ,,\r\n\r\np0.png,1,,\r\n,,\r\n"a, b (1).png", 2\r\n'.encode()
    )
    assert [(r.name, r.mos) for r in read_csv(table)] == [("p0.png", 1), ("a, b (1).png", 2)]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("path,score", "p0.png,1", r"scores.csv, line 1: .*columns path,mos.*found path,score"),
        ("path,mos,mos", "p0.png,1,2", r"line 1: .*each once"),
        ("p0.png,1", "p1.png,2", r"line 1: expected a header"),
        ("path,mos", "p0.png,1\n\np1.png,nan", r"line 4: column mos is 'nan'"),
        ("path,mos", "p0.png,1\np1.png,inf", r"line 3: column mos is 'inf'"),
        ("path,mos", "p0.png,good", r"line 2: column mos is 'good'; expected a finite number"),
        ("path,mos", "p0.png", r"line 2: column mos is empty"),
        ("path,mos", ",3", r"line 2: column path is empty"),
        ("path,mos,split", "p0.png,1,dev", r"line 2: column split is 'dev'"),
        ("path,mos,split", "p0.png,1,train\np1.png,2,", r"split is empty for 1 of 2 rows.*p1.png"),
        ("path,mos", "p0.png,1\np0.png,2", r"more than once: p0.png"),
        ("path,mos", "p0.png,1\nq.png,2\nr.png,3", r"2 of 3 image files are missing.*q.png.*r.png"),
        ("path,mos", "p0.png,2\np1.png,2", r"every score is 2.0; state mos_range"),
        ("path,mos", " ", r"a header and no rows"),
        ("", " ", r"the file is empty"),
        ('path,"mos', "p0.png,2", r"not a comma-separated table"),
    ],
)
def test_broken_tables_say_file_line_and_expectation(tmp_path, header, rows, message):
    with pytest.raises(DataError, match=message) as raised:
        read_csv(write_csv(tmp_path, 2, header, rows))
    assert "scores" in str(raised.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(DataError, match=r"none.csv: no such file"):
        read_csv(tmp_path / "none.csv")
    table = tmp_path / "utf16.csv"
    table.write_text("path,mos\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"utf16.csv: not UTF-8 text"):
        read_csv(table)


def test_stated_range_is_checked(tmp_path):
    table = write_csv(tmp_path, 3)
    with pytest.raises(DataError, match=r"p2.png is 2.0, outside mos_range=\[0.0, 1.0\]"):
        read_csv(table, mos_range=(0, 1))
    with pytest.raises(ConfigError, match=r"mos_range=\[1\]"):
        read_csv(table, mos_range=[1])

"""Every reader on its miniature, whole and broken."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from miniature_datasets import WRITERS, write_csiq_lines, write_sheet, write_text
from miniatures import write_image
from omegaconf import OmegaConf
from openpyxl import load_workbook
from scipy.io import loadmat, savemat

from latentiqa.commands.launch import build
from latentiqa.commands.search_path import config_folder
from latentiqa.data.images import inspect_images
from latentiqa.data.splits import make_split
from latentiqa.errors import ConfigError, DataError

NOT_PUBLISHED = {"folder", "synthetic"}
"""Made of anybody's pictures: there is no layout of authors."""

CHOICES = sorted(
    path.stem
    for path in (config_folder("conf") / "dataset").glob("*.yaml")
    if OmegaConf.is_missing(OmegaConf.load(path), "root") and path.stem not in NOT_PUBLISHED
)
SCORES = {
    # Some picture's score as the miniature's table has it, and what a head is taught.
    "agiqa1k": ("deepai_0.png", 1.1, 0.22),
    "agiqa3k": ("AttnGAN_normal_001.jpg", 1.5, 0.3),
    "bid": ("DatabaseImage0007.JPG", 2.25, 0.45),
    "cid2013": ("IS_IV_C04_D01.jpg", -9.549, 0.0),
    "clive": ("10.bmp", 72.0, 0.72),
    "csiq": ("1600.jpeg2000.5.png", 0.9, 0.1),
    "flive": ("EE371R/cj23478.jpg", 61.5, 0.615),
    "kadid10k": ("I81_25_05.png", 1.0, 0.0),
    "koniq10k": ("826373.jpg", 3.9, 2.9 / 99),
    "live": ("jp2k/img1.bmp", -1.64, 1.0),
    "nnid": ("sub2048/DSC_1.png", 0.45, 1.0),
    "pipal": ("A0007_10_19.bmp", 1100.5, 0.0),
    "piq23": ("Overall/3_Outdoor_7.JPG", 1.5, 1.0),
    "spaq": ("00002.jpg", 20.0, 0.2),
    "tid2008": ("i01_04_2.bmp", 1.51429, 1.51429 / 9),
    "tid2013": ("i02_24_5.bmp", 3.51429, 3.51429 / 9),
    "uhd_iqa": ("3.jpg", 0.7, 0.7),
}

KINDS = dict.fromkeys(
    ["csiq", "kadid10k", "kadis700k", "live", "pipal", "tid2008", "tid2013"], "synthetic"
) | dict.fromkeys(["agiqa1k", "agiqa3k"], "generated")
"""Of those that are not authentic."""


@dataclass(frozen=True)
class Facts:
    """What a miniature holds: pictures, contents, official parts."""

    pictures: int
    contents: int
    parts: tuple[int, int, int] | None = None


FACTS = {
    "agiqa1k": Facts(4, 4),
    "agiqa3k": Facts(4, 3),
    "bid": Facts(4, 0),
    "biq2021": Facts(9, 0, (6, 0, 3)),
    "cid2013": Facts(5, 5),
    "clive": Facts(3, 0),
    "csiq": Facts(6, 3),
    "flive": Facts(4, 4, (2, 1, 1)),
    "kadid10k": Facts(6, 3),
    "kadis700k": Facts(2, 2),
    "koniq10k": Facts(4, 0, (2, 1, 1)),
    "live": Facts(10, 3),
    "nnid": Facts(3, 0),
    "pipal": Facts(4, 2),
    "piq23": Facts(4, 0, (2, 0, 2)),
    "spaq": Facts(4, 0),
    "tid2008": Facts(6, 3),
    "tid2013": Facts(6, 3),
    "uhd_iqa": Facts(4, 0, (2, 1, 1)),
}


def read(choice: str, root: Path, **options):
    config = OmegaConf.load(config_folder("conf") / "dataset" / f"{choice}.yaml")
    return build(OmegaConf.merge(config, {"root": str(root), **options}))


@pytest.fixture(params=CHOICES)
def choice(request) -> str:
    return request.param


@pytest.fixture
def root(choice, tmp_path) -> Path:
    return WRITERS[choice](tmp_path / choice)


def test_every_dataset_with_a_folder_has_a_miniature():
    assert set(CHOICES) == set(WRITERS) == set(FACTS)


def test_a_miniature_is_read_whole(choice, root):
    facts, manifest = FACTS[choice], read(choice, root)
    assert manifest.dataset == choice
    assert manifest.source is not None
    assert manifest.source.kind == KINDS.get(choice, "authentic")
    assert len(manifest) == facts.pictures
    assert len({r.reference for r in manifest} - {None}) == facts.contents
    keys, bad = inspect_images(manifest.records)
    assert len(keys) == facts.pictures
    assert not bad
    parts = [record.part for record in manifest]
    if facts.parts is None:
        assert set(parts) == {None}
    else:
        assert tuple(parts.count(part) for part in ("train", "val", "test")) == facts.parts
        assert make_split(manifest, "official").kind == "official"


@pytest.mark.parametrize("choice", sorted(SCORES))
def test_scores_and_their_direction(choice, root):
    name, mos, target = SCORES[choice]
    manifest = read(choice, root)
    record = manifest.by_name[name]
    assert record.mos == pytest.approx(mos)
    assert manifest.target(record.mos) == pytest.approx(target, abs=1e-9)


def test_a_dataset_that_is_not_there_is_described(choice, tmp_path):
    with pytest.raises(DataError) as caught:
        read(choice, tmp_path / "nowhere")
    message = str(caught.value)
    assert message.startswith(f"{choice}: {tmp_path / 'nowhere'} not found; expected the authors'")
    assert "licence: " in message
    assert "nothing is downloaded for you" in message


def test_a_missing_picture_is_named(choice, root):
    gone = read(choice, root).records[0].path
    gone.unlink()
    with pytest.raises(DataError, match=r"1 of \d+ image files are missing: ") as caught:
        read(choice, root)
    # Where pictures are found by their names the place that it should have is not known.
    assert gone.name.lower() in str(caught.value).lower()


def test_a_truncated_picture_is_found(choice, root):
    manifest = read(choice, root)
    broken = manifest.records[0].path
    broken.write_bytes(broken.read_bytes()[:40])
    _, bad = inspect_images(manifest.records)
    assert [image.path for image in bad] == [broken]


def tables(root: Path) -> list[Path]:
    """Files that a reader of this miniature reads, pictures apart."""
    found = [*root.rglob("*.csv"), *root.rglob("*.xlsx"), *root.rglob("*.txt")]
    found += root.rglob("*.mat")
    unread = {"dmos.mat", "AllStdDev_release.mat", "info.txt"}
    second = "koniq10k_scores_and_distributions.csv", "labels_patch.csv", "Scene Split.csv"
    return sorted(path for path in found if path.name not in {*unread, *second})


def test_broken_tables_are_named(choice, root):
    if choice == "koniq10k":  # would do for the other one
        (root / "koniq10k_scores_and_distributions.csv").unlink()
    for table in tables(root):
        whole = table.read_bytes()
        table.write_bytes(b"\xff\xfe\x00broken")
        with pytest.raises(DataError) as caught:
            read(choice, root)
        assert str(table) in str(caught.value)
        table.write_bytes(b"")
        with pytest.raises(DataError, match=rf"{choice}|{table.name}"):
            read(choice, root)
        table.unlink()
        if choice != "pipal":  # a table for each photo: what is not there is not missed
            with pytest.raises(DataError, match=r"not found|no such file"):
                read(choice, root)
        table.write_bytes(whole)
    assert read(choice, root)


@pytest.mark.parametrize(
    ("choice", "table", "old", "new", "message"),
    [
        ("kadid10k", "dmos.csv", "dmos,var", "mos,var", "line 1: .*dist_img,ref_img,dmos"),
        ("kadid10k", "dmos.csv", "4.40", "nan", r"line 2: column dmos is 'nan'"),
        ("kadid10k", "dmos.csv", "I01_01_01.png,", "I01.png,", r"'I01.png'; expected <photo>_"),
        ("tid2013", "mos_with_names.txt", "0.51429", "NaN", "line 1: column mos is 'NaN'"),
        ("tid2013", "mos_with_names.txt", "0.51429 ", "", "line 1: .*; expected mos name"),
        ("tid2013", "mos_with_names.txt", "I01_01_1", "I01-01", "expected <photo>_<distortion>"),
        ("koniq10k", "koniq10k_distributions_sets.csv", "training", "train", "set is 'train'"),
        ("koniq10k", "koniq10k_distributions_sets.csv", ",set", ",part", "line 1: .*MOS,set"),
        ("flive", "labels_image.csv", "60.5", "600.5", r"600.5, outside mos_range=\[0.0, 100.0\]"),
        ("flive", "labels640.csv", "name_image", "name", "line 1: .*name_image"),
        ("agiqa3k", "data.csv", "mos_quality", "mos", "line 1: .*mos_quality"),
        ("pipal", "Train_Label/A0001.txt", "1400.5", "best", "line 1: column elo is 'best'"),
        ("nnid", "mos512_with_names.txt", "0.25", "inf", "line 1: column mos is 'inf'"),
        ("piq23", "Scores_Overall.csv", "-1.5", "", "line 2: column JOD is empty"),
        ("piq23", "Device Split.csv", "Test", "Exam", "'exam'; expected train or test"),
        ("piq23", "Device Split.csv", "1_Lowlight", "9_Lowlight", "1_Lowlight_0.JPG is not in"),
        ("uhd_iqa", "uhd-iqa-metadata.csv", "quality_mos", "mos", "line 1: .*quality_mos"),
        ("uhd_iqa", "uhd-iqa-metadata.csv", "test", "exam", "column set is 'exam'"),
        ("kadis700k", "kadis700k_ref_imgs.csv", "ref_im,", "name,", "line 1: .*ref_im"),
    ],
)
def test_what_is_wrong_in_a_table_of_text_is_said(choice, root, table, old, new, message):
    text = (root / table).read_text()
    assert old in text
    (root / table).write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read(choice, root)


@pytest.mark.parametrize(
    ("choice", "table", "name", "picture"),
    [
        ("live", "dmos_realigned.mat", "dmos_new", "jp2k/img1.bmp"),
        ("clive", "Data/AllMOS_release.mat", "AllMOS_release", "3.bmp"),
    ],
)
def test_scores_of_matlab_that_are_not_finite_are_named(choice, root, table, name, picture):
    content = loadmat(root / table)
    content[name][0, 0 if choice == "live" else 7] = math.nan
    savemat(root / table, {key: value for key, value in content.items() if key[0] != "_"})
    with pytest.raises(DataError, match=f"the score of {picture} is nan"):
        read(choice, root)
    del content[name]
    savemat(root / table, {key: value for key, value in content.items() if key[0] != "_"})
    with pytest.raises(DataError, match=f"no variable {name}; the file has"):
        read(choice, root)


@pytest.mark.parametrize(
    ("choice", "table", "column"),
    [
        ("agiqa1k", "AIGC_MOS_Zscore.xlsx", "Prompt"),
        ("bid", "DatabaseGrades.xlsx", "Average Subjective Grade"),
        ("cid2013", "CID2013 data - version 12112014.xlsx", "Realigned MOS"),
        ("csiq", "csiq.DMOS.xlsx", "dmos"),
        ("spaq", "Annotations/MOS and Image attribute scores.xlsx", "MOS"),
    ],
)
def test_wrong_columns_and_scores_of_workbooks_are_named(choice, root, table, column):
    workbook = load_workbook(root / table)
    sheet = workbook.active
    [head] = [cell for row in sheet.iter_rows() for cell in row if cell.value == column]
    below = sheet.cell(head.row + 1, head.column)
    below.value = None if column == "Prompt" else "good"
    workbook.save(root / table)
    with pytest.raises(DataError, match=f"line {below.row}: column {column} is "):
        read(choice, root)
    head.value = "another"
    workbook.save(root / table)
    with pytest.raises(DataError, match=f"expected a header with the columns .*{column}"):
        read(choice, root)


# The traps.


def test_live_leaves_undistorted_copies_out_and_takes_realigned_scores(tmp_path):
    manifest = read("live", WRITERS["live"](tmp_path))
    assert not [name for name in manifest.names if name.endswith("img2.bmp")]
    assert manifest.by_name["wn/img3.bmp"].mos == pytest.approx(-2.64 + 20 + 3)
    assert {record.reference for record in manifest} == {"bikes.bmp", "ocean.bmp", "plane.bmp"}
    assert manifest.by_name["wn/img3.bmp"].attributes == {"distortion": "wn"}


def test_live_refuses_arrays_that_do_not_fit_the_folders(tmp_path):
    root = WRITERS["live"](tmp_path)
    shutil.rmtree(root / "wn")
    (root / "wn").mkdir()
    with pytest.raises(DataError, match=r"has 15 entries .* have 12 pictures"):
        read("live", root)


def test_csiq_reads_the_number_1600_and_every_case_of_its_files(tmp_path):
    workbook = read("csiq", WRITERS["csiq"](tmp_path / "a"))
    assert workbook.by_name["1600.AWGN.1.png"].reference == "1600"
    lines = read("csiq", write_csiq_lines(tmp_path / "b"))
    assert lines.fingerprint == workbook.fingerprint
    assert lines.by_name["1600.AWGN.1.png"].path.name == "1600.awgn.1.png"


def test_tid_is_one_content_whatever_the_case(tmp_path):
    manifest = read("tid2013", WRITERS["tid2013"](tmp_path))
    assert {record.reference for record in manifest} == {"i01", "i02", "i25"}
    assert manifest.by_name["I02_01_1.bmp"].path.name == "i02_01_1.bmp"
    assert manifest.by_name["i01_04_2.bmp"].path.name == "I01_04_2.BMP"
    assert manifest.by_name["i02_24_5.bmp"].attributes == {"distortion": "24", "level": "5"}


def test_kadid_is_higher_for_better_although_it_says_dmos(tmp_path):
    manifest = read("kadid10k", WRITERS["kadid10k"](tmp_path))
    mild, severe = manifest.by_name["I01_01_01.png"], manifest.by_name["I01_25_05.png"]
    assert manifest.target(mild.mos) > manifest.target(severe.mos)


def test_clive_drops_the_seven_training_pictures(tmp_path):
    manifest = read("clive", WRITERS["clive"](tmp_path))
    assert manifest.names == ("3.bmp", "10.bmp", "1024.JPG")


def test_koniq_has_one_scale_from_either_table(tmp_path):
    root = WRITERS["koniq10k"](tmp_path)
    with_sets = read("koniq10k", root)
    (root / "koniq10k_distributions_sets.csv").unlink()
    without = read("koniq10k", root, size="512x384")
    assert without.fingerprint == with_sets.fingerprint
    assert without.records[0].path.parent.name == "512x384"
    with pytest.raises(DataError, match="no official split"):
        make_split(without, "official")
    with pytest.raises(ConfigError, match="size='640x480': expected 1024x768 or 512x384"):
        read("koniq10k", root, size="640x480")


def test_flive_patches_are_in_the_parts_of_their_pictures(tmp_path):
    root = WRITERS["flive"](tmp_path)
    images, patches = read("flive", root), read("flive", root, patches=True)
    part = {record.reference: record.part for record in images}
    assert {record.reference: record.part for record in patches} == part
    assert part["EE371R/cj23478"] == "test"
    assert part["blur_dataset/m0122"] == "val"
    assert all("_patch_" in name for name in patches.names)


def test_spaq_is_read_under_either_name_of_its_workbook(tmp_path):
    root = WRITERS["spaq"](tmp_path)
    table = root / "Annotations" / "MOS and Image attribute scores.xlsx"
    first = read("spaq", root)
    table.rename(root / table.name.replace(" ", "_"))
    assert read("spaq", root).fingerprint == first.fingerprint
    assert first.records[0].attributes["noisiness"] == "50.25"


def test_agiqa_keeps_a_prompt_or_an_object_together(tmp_path):
    one, three = WRITERS["agiqa1k"](tmp_path / "1"), WRITERS["agiqa3k"](tmp_path / "3")
    objects = [r.reference for r in read("agiqa1k", one, content="object")]
    assert objects[0] == objects[1] == "bird driving aircraft city"
    assert len(set(objects)) == 3
    assert [r.reference for r in read("agiqa3k", three, content="object")] == [
        *["a cat"] * 2,
        *["a dog"] * 2,
    ]
    with pytest.raises(ConfigError, match="content='style': expected prompt or object"):
        read("agiqa3k", three, content="style")


@pytest.mark.parametrize("content", ["prompt", "object"])
@pytest.mark.parametrize("choice", ["agiqa1k", "agiqa3k"])
def test_no_prompt_or_object_of_agiqa_is_in_two_parts(choice, content, tmp_path):
    """As each picture's prompt says it, whatever the reader took for its content."""
    things, styles = ("a red fox", "a cat", "old mill", "sea"), ("anime style", "Sci-fi  style")
    # A prompt three times: generated by three models, and not written the same each time.
    prompts = [f"{thing}, {style}" for thing in things for style in styles] * 2
    prompts += [f"{thing.title()} ,{style}" for thing in things for style in styles]
    names = [f"model{i}.png" for i in range(len(prompts))]
    for seed, name in enumerate(names):
        write_image(tmp_path / "file" / name, seed)
    if choice == "agiqa1k":
        rows = [[name, prompt, 1.5] for name, prompt in zip(names, prompts, strict=True)]
        write_sheet(
            tmp_path / "AIGC_MOS_Zscore.xlsx", [["Image", "Prompt", "MOS"], *rows], "Sheet1"
        )
    else:
        rows = [f'{name},"{prompt}",1.5' for name, prompt in zip(names, prompts, strict=True)]
        write_text(tmp_path / "data.csv", "name,prompt,mos_quality", *rows)
    prompt_of = dict(zip(names, prompts, strict=True))
    manifest = read(choice, tmp_path, content=content)
    for seed in range(10):
        split = make_split(manifest, seed)
        seen: dict[str, str] = {}
        for part in ("train", "val", "test"):
            for name in getattr(split, part):
                told = prompt_of[name].split(",")[0] if content == "object" else prompt_of[name]
                key = "".join(filter(str.isalnum, told.lower()))
                assert seen.setdefault(key, part) == part
        assert len(seen) == (4 if content == "object" else 8)
        assert sorted(split.train + split.val + split.test) == sorted(names)


def test_cid2013_groups_are_its_image_sets(tmp_path):
    manifest = read("cid2013", WRITERS["cid2013"](tmp_path))
    assert manifest.by_name["IS_VI_C05_D01.jpg"].reference == "IS_VI"
    assert manifest.by_name["IS_VI_C05_D01.jpg"].path.parent.parent.name == "IS6"
    assert manifest.mos_range[0] == pytest.approx(-9.549)


def test_nnid_finds_the_folder_with_the_capital(tmp_path):
    manifest = read("nnid", WRITERS["nnid"](tmp_path))
    assert manifest.by_name["sub2048/DSC_1.png"].path.parent.name == "Sub2048"
    assert len({record.path for record in manifest}) == 3
    with pytest.raises(ConfigError, match="side=256: expected one of 512, 1024, 2048"):
        read("nnid", tmp_path, side=256)


def test_piq23_has_two_official_splits(tmp_path):
    root = WRITERS["piq23"](tmp_path)
    by_device, by_scene = read("piq23", root), read("piq23", root, official="scene")
    assert [record.part for record in by_device] == ["train", "test"] * 2
    assert [record.part for record in by_scene] == ["train", "train", "test", "test"]
    assert {record.reference for record in by_scene} == {"Lowlight_0", "Outdoor_7"}
    (root / "Test split").mkdir()
    (root / "Scene Split.csv").rename(root / "Test split" / "Scene Split.csv")
    assert read("piq23", root, official="scene") == by_scene
    assert {record.part for record in read("piq23", root, official=None)} == {None}
    for wrong in ({"attribute": "Taste"}, {"official": "phone"}):
        with pytest.raises(ConfigError, match="expected"):
            read("piq23", root, **wrong)


def test_kadis700k_has_no_scores(tmp_path):
    root = WRITERS["kadis700k"](tmp_path)
    manifest = read("kadis700k", root, distorted=True)
    assert not manifest.is_rated
    assert all(math.isnan(record.mos) for record in manifest)
    assert len(manifest) == 2 * 6
    assert {record.reference for record in manifest} == {"a-fleshy-plant-1464418", "sea.v2"}
    assert "dist_imgs/sea.v2_21_05.bmp" in manifest.names
    with pytest.raises(DataError, match="has no scores"):
        manifest.target(0.5)

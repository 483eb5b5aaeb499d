"""Published datasets in miniature: their authors' own names, cases, tables and structures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from miniatures import write_biq2021, write_image
from openpyxl import Workbook
from scipy.io import savemat


def write_sheet(path: Path, rows: Sequence[Sequence[Any]], title: str, above: int = 0) -> None:
    """A workbook of two sheets, the second of which holds the rows, ``above`` lines down."""
    workbook = Workbook()
    workbook.active.title = "remarks"
    workbook.active.append(["made by the authors"])
    sheet = workbook.create_sheet(title)
    workbook.active = sheet
    for number, row in enumerate(rows, 1 + above):
        for column, value in enumerate(row, 1):
            sheet.cell(number, column, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    workbook.save(path)


def cells(texts: Sequence[str], *, column: bool) -> np.ndarray:
    """A MATLAB cell array of texts."""
    array = np.empty((len(texts), 1) if column else (1, len(texts)), dtype=object)
    array[...] = np.array(texts, dtype=object).reshape(array.shape)
    return array


def write_text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_live(root: Path) -> Path:
    """Per distortion three pictures, of which the second is an undistorted copy."""
    kinds = ("jp2k", "jpeg", "wn", "gblur", "fastfading")
    references, dmos, originals = [], [], []
    for i, kind in enumerate(kinds):
        for n in (1, 2, 3):
            write_image(root / kind / f"img{n}.bmp", 3 * i + n)
            references.append(("Bikes.bmp", "bikes.bmp", "ocean.bmp", "plane.bmp")[(n + i) % 4])
            dmos.append(0.0 if n == 2 else -2.64 + 10 * i + n)
            originals.append(n == 2)
        write_text(root / kind / "info.txt", "bikes.bmp img1.bmp 0.5")
    for name in ("bikes", "ocean", "plane"):
        write_image(root / "refimgs" / f"{name}.bmp")
    arrays = {"dmos_new": [dmos], "dmos_std": [dmos], "orgs": np.array([originals], dtype=np.uint8)}
    savemat(root / "dmos_realigned.mat", arrays)
    savemat(root / "dmos.mat", {"dmos": [[50.0] * len(dmos)], "orgs": arrays["orgs"]})
    savemat(root / "refnames_all.mat", {"refnames_all": cells(references, column=False)})
    return root


CSIQ = (
    (1600, "noise", 1, "awgn/1600.AWGN.1.png", 0.062),
    (1600, "jpeg 2000", 5, "jpeg2000/1600.jpeg2000.5.png", 0.9),
    ("aerial_city", "blur", 2, "blur/aerial_city.BLUR.2.png", 0.4),
    ("aerial_city", "contrast", 3, "contrast/aerial_city.contrast.3.png", 0.5),
    ("sunset_color", "fnoise", 4, "fnoise/sunset_color.fnoise.4.png", 0.6),
    ("sunset_color", "jpeg", 1, "jpeg/sunset_color.JPEG.1.png", 0.0),
)


def write_csiq(root: Path) -> Path:
    """Header on row 4, in column D; below the table a remark without a picture."""
    for seed, row in enumerate(CSIQ):
        write_image(root / "dst_imgs" / row[3], seed)
    names = ("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos")
    rows: list[list[Any]] = [[None] * 3 + list(names)]
    for photo, kind, level, _, dmos in CSIQ:
        rows.append([None] * 3 + [photo, 1, kind, level, 0.1, dmos])
    rows.append([None, "average", None, None, None, None, None, 0.1, 0.4])
    write_sheet(root / "csiq.DMOS.xlsx", rows, "all_by_image", above=3)
    return root


def write_csiq_lines(root: Path) -> Path:
    """As passed on: one folder, other cases, a text file in place of the workbook."""
    for seed, row in enumerate(CSIQ):
        write_image(root / "dst_imgs_all" / Path(row[3]).name.lower(), seed)
    lines = [f"{Path(row[3]).name} {row[4]}" for row in CSIQ]
    write_text(root / "csiq_label.txt", *lines)
    return root


def write_tid2013(root: Path) -> Path:
    """Upper and lower case as they come."""
    listed = ("I01_01_1.bmp", "i01_04_2.bmp", "I02_01_1.bmp", "i02_24_5.bmp", "I25_01_1.bmp")
    on_disk = ("I01_01_1.bmp", "I01_04_2.BMP", "i02_01_1.bmp", "i02_24_5.bmp", "i25_01_1.bmp")
    for seed, name in enumerate((*on_disk, "i25_02_1.bmp")):
        write_image(root / "distorted_images" / name, seed)
    lines = [f"{0.5 + i}1429 {name}" for i, name in enumerate((*listed, "i25_02_1.bmp"))]
    write_text(root / "mos_with_names.txt", *lines)
    return root


def write_kadid10k(root: Path) -> Path:
    rows = [(f"I{r:02d}", t, level) for r in (1, 2, 81) for t, level in ((1, 1), (25, 5))]
    for seed, (photo, kind, level) in enumerate(rows):
        write_image(root / "images" / f"{photo}_{kind:02d}_{level:02d}.png", seed)
        write_image(root / "images" / f"{photo}.png", seed)
    lines = [f"{p}_{t:02d}_{v:02d}.png,{p}.png,{5.25 - 0.85 * v:.2f},0.4" for p, t, v in rows]
    write_text(root / "dmos.csv", "dist_img,ref_img,dmos,var", *lines)
    return root


def write_kadis700k(root: Path) -> Path:
    for seed, (photo, kind) in enumerate((("a-fleshy-plant-1464418.png", 7), ("sea.v2.png", 21))):
        write_image(root / "ref_imgs" / photo, seed)
        for level in range(1, 6):
            stem = photo.removesuffix(".png")
            write_image(root / "dist_imgs" / f"{stem}_{kind:02d}_{level:02d}.bmp", seed)
    lines = ["a-fleshy-plant-1464418.png,7,8", "sea.v2.png,21,3"]
    write_text(root / "kadis700k_ref_imgs.csv", "ref_im,dist_type_1,dist_type_2", *lines)
    return root


def write_clive(root: Path) -> Path:
    """Seven training pictures first."""
    names = [*(f"t{i}.bmp" for i in range(1, 8)), "3.bmp", "10.bmp", "1024.JPG"]
    for seed, name in enumerate(names):
        folder = root / "Images" / ("trainingImages" if seed < 7 else "")
        write_image(folder / name, seed)
    (root / "Data").mkdir()
    values = {"AllMOS_release": [range(1, 11)], "AllStdDev_release": [range(1, 11)]}
    for key, value in values.items():
        savemat(root / "Data" / f"{key}.mat", {key: np.array(value, dtype=float) * 8})
    images = {"AllImages_release": cells(names, column=True)}
    savemat(root / "Data" / "AllImages_release.mat", images)
    return root


KONIQ = (("10004473376.jpg", 3.9, 73.0, "training"), ("826373.jpg", 1.1, 3.9, "validation"))
KONIQ += (("9991.jpg", 4.3, 88.4, "test"), ("9992.jpg", 2.0, 30.0, "training"))


def write_koniq10k(root: Path) -> Path:
    """Both tables, whose MOS are on two scales, and both sizes."""
    for seed, (name, *_) in enumerate(KONIQ):
        write_image(root / "1024x768" / name, seed, (32, 24))
        write_image(root / "512x384" / name, seed, (16, 12))
    counts = "0,1,20,80,5"
    write_text(
        root / "koniq10k_distributions_sets.csv",
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set",
        *(f"{name},{counts},106,{z},0.5,{part}" for name, _, z, part in KONIQ),
    )
    write_text(
        root / "koniq10k_scores_and_distributions.csv",
        '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"',
        *(f'"{name}",{counts},106,{mos},0.5,{z}' for name, mos, z, _ in KONIQ),
    )
    return root


def write_flive(root: Path) -> Path:
    names = ("voc_emotic_ava/a.jpg", "EE371R/cj23478.jpg", "blur_dataset/m0122.jpg", "EE371R/b.jpg")
    for seed, name in enumerate(names):
        write_image(root / name, seed)
        write_image(root / "patches" / name.replace(".jpg", "_patch_1.jpg"), seed)
    write_text(
        root / "labels_image.csv", "name,mos", *(f"{n},{60 + i}.5" for i, n in enumerate(names))
    )
    patches = (f"patches/{n.replace('.jpg', '_patch_1.jpg')},{50 + i}" for i, n in enumerate(names))
    write_text(root / "labels_patch.csv", "name,mos", *patches)
    write_text(root / "labels640.csv", "name_image,mos_image", f"{names[1]},61.5")
    valid = (f"{n},{n == names[2]}" for n in (names[0], names[2], names[3]))
    write_text(root / "labels=640_padded.csv", "name_image,is_valid", *valid)
    return root


def write_spaq(root: Path) -> Path:
    header = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness"]
    rows: list[list[Any]] = [[*header, "Sharpness"]]
    for i in range(4):
        write_image(root / "TestImage" / f"{i + 1:05d}.jpg", i, (48, 36))
        rows.append([f"{i + 1:05d}.jpg", 20.0 * i, *[50.25] * 5])
    write_sheet(root / "Annotations" / "MOS and Image attribute scores.xlsx", rows, "Sheet1")
    return root


def write_agiqa1k(root: Path) -> Path:
    prompts = (
        "bird driving aircraft,city,anime style",
        "bird driving aircraft, city, realistic style",
    )
    prompts += ("witch using phone,wild,anime style", "cat having pizza,wild,realistic style")
    rows: list[list[Any]] = [["Image", "Prompt", "MOS"]]
    for i, prompt in enumerate(prompts):
        write_image(root / "file" / f"deepai_{i}.png", i)
        rows.append([f"deepai_{i}.png", prompt, 1.1 + i])
    write_sheet(root / "AIGC_MOS_Zscore.xlsx", rows, "Sheet1")
    return root


def write_agiqa3k(root: Path) -> Path:
    prompts = ("a cat, blurry, sci-fi style", "a cat, dark, anime style", "a dog", "a dog")
    for i in range(4):
        write_image(root / "images" / f"AttnGAN_normal_{i:03d}.jpg", i)
    header = "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align"
    rows = (f'AttnGAN_normal_{i:03d}.jpg,"{p}",,,,{i}.5,0.2,4,0.2' for i, p in enumerate(prompts))
    write_text(root / "data.csv", header, *rows)
    return root


def write_cid2013(root: Path) -> Path:
    """A score below 0, a column name that comes twice, a line of remarks above."""
    rows: list[list[Any]] = [["Source_ID", "MOS", "Realigned MOS", "sharpness", "SD", "SD"]]
    for i, (number, roman) in enumerate(((1, "I"), (2, "II"), (3, "III"), (4, "IV"), (6, "VI"))):
        name = f"IS_{roman}_C0{i + 1}_D01"
        write_image(root / f"IS{number}" / f"co{i + 1}" / f"{name}.jpg", i)
        rows.append([name, 50, -9.549 if i == 3 else 20.5 * i, 1, 2, 3])
    path = root / "CID2013 data - version 12112014.xlsx"
    write_sheet(path, [["CID2013 database"], *rows], "CID2013 MOS")
    return root


def write_bid(root: Path) -> Path:
    rows: list[list[Any]] = [["Image Number", "Average Subjective Grade", "std"]]
    for number in (1, 7, 586, 1012):
        write_image(root / f"DatabaseImage{number:04d}.JPG", number)
        rows.append([number, number % 5 + 0.25, 0.5])
    write_sheet(root / "DatabaseGrades.xlsx", [*rows, [None, None, None]], "Plan1")
    return root


def write_pipal(root: Path) -> Path:
    for i, photo in enumerate(("A0001", "A0007")):
        names = [f"{photo}_00_00.bmp", f"{photo}_10_19.bmp"]
        for j, name in enumerate(names):
            write_image(root / f"Distortion_{2 * i + j + 1}" / name, 2 * i + j)
        lines = [f"{name},{1400.5 - 100 * (2 * i + j)}" for j, name in enumerate(names)]
        write_text(root / "Train_Label" / f"{photo}.txt", *lines)
        write_image(root / "Train_Ref" / f"{photo}.bmp", 9)
    return root


def write_nnid(root: Path) -> Path:
    """One name in two folders; the third folder begins with a capital."""
    for i, (folder, side) in enumerate((("sub512", 512), ("sub1024", 1024), ("Sub2048", 2048))):
        write_image(root / folder / "DSC_1.png", i)
        write_text(root / f"mos{side}_with_names.txt", f"0.{i + 2}5\tDSC_1.png")
    return root


def write_piq23(root: Path) -> Path:
    """Paths with back-slashes; portraits of two scenes."""
    header = "IMAGE PATH,IMAGE,JOD,JOD STD,CI LOW,CI HIGH,CI RANGE,QUALITY LEVEL,CLUSTER,TOTAL"
    lines = []
    for i, scene in enumerate(("Lowlight_0", "Lowlight_0", "Outdoor_7", "Outdoor_7")):
        name = f"{i}_{scene}.JPG"
        write_image(root / "Overall" / name, i)
        lines.append(f"Overall\\{name},{name},{i - 1.5},0.1,0,0,0,1,1,40,{scene},Overall,0,Indoor")
    columns = f"{header} COMPARISONS,SCENE,ATTRIBUTE,SCENE IDX,CONDITION"
    write_text(root / "Scores_Overall.csv", columns, *lines)
    names = [line.split(",")[1] for line in lines]
    device = [f"{name},{'Test' if i % 2 else 'Train'}" for i, name in enumerate(names)]
    write_text(root / "Device Split.csv", "IMAGE,SPLIT", *device)
    write_text(root / "Scene Split.csv", "SCENE,SPLIT", "Lowlight_0,Train", "Outdoor_7,Test")
    return root


def write_uhd_iqa(root: Path) -> Path:
    lines = []
    for i, part in enumerate(("training", "validation", "test", "training")):
        write_image(root / "challenge" / part / f"{i + 1}.jpg", i, (64, 36))
        lines.append(f"{i + 1}.jpg,0.{5 + i},{part},5515,3375")
    header = "image_name,quality_mos,set,orig_width,orig_height"
    write_text(root / "uhd-iqa-metadata.csv", header, *lines)
    return root


def write_huggingface(root: Path) -> Path:
    """Four pictures in the columns ``image`` and ``mos``, as `save_to_disk` leaves them."""
    import datasets

    paths = [str(write_image(root.parent / "pictures" / f"{i}.png", i)) for i in range(4)]
    rows = datasets.Dataset.from_dict({"image": paths, "mos": [1.0, 2.0, 3.0, 4.0]})
    rows.cast_column("image", datasets.Image()).save_to_disk(root)
    return root


def write_tid2008(root: Path) -> Path:
    return write_tid2013(root)


WRITERS: dict[str, Callable[[Path], Path]] = {
    "agiqa1k": write_agiqa1k,
    "agiqa3k": write_agiqa3k,
    "bid": write_bid,
    "biq2021": write_biq2021,
    "cid2013": write_cid2013,
    "clive": write_clive,
    "csiq": write_csiq,
    "flive": write_flive,
    "kadid10k": write_kadid10k,
    "kadis700k": write_kadis700k,
    "koniq10k": write_koniq10k,
    "live": write_live,
    "nnid": write_nnid,
    "pipal": write_pipal,
    "piq23": write_piq23,
    "spaq": write_spaq,
    "tid2008": write_tid2008,
    "tid2013": write_tid2013,
    "uhd_iqa": write_uhd_iqa,
}
"""Choice in conf/dataset/ -> what writes its miniature below a folder."""

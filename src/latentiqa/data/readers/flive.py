"""FLIVE, also PaQ-2-PiQ and LIVE-FB: photos of social media and patches of them."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Part, Record
from latentiqa.data.readers.source import Source
from latentiqa.data.tables import read_rows
from latentiqa.errors import ConfigError

IMAGES, PATCHES = "labels_image.csv", "labels_patch.csv"
TEST, VALIDATION = "labels640.csv", "labels=640_padded.csv"

SOURCE = Source(
    name="flive",
    paper="Ying et al., CVPR 2020",
    home="github.com/niu-haoran/FLIVE_Database",
    licence="research use; cite the paper",
    pictures=39807,
    layout=f"database/ with {IMAGES}, {TEST}, {VALIDATION} and the folders that names begin with",
    mos_range=(0.0, 100.0),
    kind="authentic",
)


def read_flive(root: str | Path, patches: bool = False) -> Manifest:
    """Read FLIVE: MOS from 0 to 100, higher is better, with the official split.

    A name has its folder (``voc_emotic_ava/1.jpg``). Test are the pictures of ``labels640.csv``,
    validation those that ``labels=640_padded.csv`` marks as ``is_valid``, train the others: 1,827,
    7,727 and 30,253 *pictures*. Figures on 7,308 test items count their patches too and cannot be
    compared.

    Args:
        root: the folder ``database/``.
        patches: the patches in place of the pictures; each is in its picture's part and shares its
            reference.

    Raises:
        ConfigError: ``patches`` is not true or false.
        DataError: something is missing or broken.
    """
    if not isinstance(patches, bool):
        raise ConfigError(f"patches={patches!r}: expected true or false")
    labels = PATCHES if patches else IMAGES
    root = SOURCE.locate(root, labels, TEST, VALIDATION)
    parts: dict[str, Part] = {
        _key(row.text("name_image")): "val"
        for row in read_rows(root / VALIDATION, ("name_image", "is_valid"))
        if row.text("is_valid").lower() == "true"
    }
    parts |= {
        _key(row.text("name_image")): "test" for row in read_rows(root / TEST, ("name_image",))
    }
    return SOURCE.manifest(
        Record(
            name=row.text("name"),
            path=root / row.text("name"),
            mos=row.number("mos"),
            reference=_key(row.text("name")),
            part=parts.get(_key(row.text("name")), "train"),
        )
        for row in read_rows(root / labels, ("name", "mos"))
    )


def _key(name: str) -> str:
    """What a picture and its patches share: folder and name without ``_patch_N`` and suffix.

    Example:
        >>> _key("patches/EE371R/cj2_patch_3.jpg"), _key("EE371R/cj2.jpg")
        ('EE371R/cj2', 'EE371R/cj2')
    """
    stem = name.removeprefix("patches/").rpartition(".")[0]
    return stem.partition("_patch_")[0]

"""PIQ23: portraits of 50 scenes by more than 100 smartphones."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Part, Record
from latentiqa.data.readers.source import Source
from latentiqa.data.tables import Row, read_lines, read_rows
from latentiqa.errors import ConfigError, DataError

ATTRIBUTES = ("Overall", "Details", "Exposure")
OFFICIAL = {"device": "Device Split.csv", "scene": "Scene Split.csv"}
PARTS: dict[str, Part] = {"train": "train", "test": "test"}

SOURCE = Source(
    name="piq23",
    paper="Chahine et al., CVPR 2023",
    home="corp.dxomark.com/data-base-piq23 (a form); splits: github.com/DXOMARK-Research/PIQ2023",
    licence="non-commercial research, after agreeing to its terms",
    pictures=5116,
    layout="Scores_Overall.csv, Overall/, Device Split.csv, Scene Split.csv; the same for Details "
    "and Exposure",
    mos_range=None,
    kind="authentic",
)
NOTE = "piq23: JOD scores are of comparisons within a scene"


def read_piq23(
    root: str | Path, attribute: str = "Overall", official: str | None = "device"
) -> Manifest:
    """Read PIQ23: JOD of one attribute, higher is better.

    Paths are written with back-slashes. Of the two official splits ``device`` has all scenes in
    both parts, so that scenes are no contents then; otherwise a split keeps a scene together.

    Args:
        root: folder with the tables and the pictures; the splits may lie in ``Test split/``.
        attribute: ``Overall``, ``Details`` or ``Exposure``.
        official: ``device`` or ``scene``; none needs no split file.

    Raises:
        ConfigError: another attribute or split.
        DataError: something is missing or broken, or a picture is in no part of the split.
    """
    if attribute not in ATTRIBUTES:
        raise ConfigError(f"attribute={attribute!r}: expected one of {', '.join(ATTRIBUTES)}")
    if official not in (None, *OFFICIAL):
        raise ConfigError(f"official={official!r}: expected {', '.join(OFFICIAL)} or null")
    table = f"Scores_{attribute}.csv"
    root = SOURCE.locate(root, table)
    parts = _parts(root, official)
    records = []
    for row in read_rows(root / table, ("IMAGE PATH", "JOD", "SCENE")):
        name = row.text("IMAGE PATH").replace("\\", "/")
        scene = row.text("SCENE")
        key = name.rpartition("/")[2] if official == "device" else scene
        if official and key not in parts:
            raise row.error(f"{key} is not in {OFFICIAL[official]}; complete it or official=null")
        records.append(
            Record(
                name=name,
                path=root / name,
                mos=row.number("JOD"),
                reference=None if official == "device" else scene,
                part=parts.get(key),
                attributes={"scene": scene},
            )
        )
    return SOURCE.manifest(records, NOTE)


def _parts(root: Path, official: str | None) -> dict[str, Part]:
    """Part of each picture (device split) or scene (scene split)."""
    if official is None:
        return {}
    places = [root / OFFICIAL[official], root / "Test split" / OFFICIAL[official]]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"piq23: {places[0]} not found; download it from the splits' page, or use "
            f"official=null. {SOURCE.how_to_get}"
        )
    header, *rows = read_lines(path, ("what", "part"), separator=",")
    if header.cells["part"].lower() in PARTS:
        rows = [header, *rows]
    return {row.text("what"): _part(row) for row in rows}


def _part(row: Row) -> Part:
    """Train or test, in any case and with whatever stands behind."""
    part = row.text("part").partition(",")[0].strip().lower()
    if part not in PARTS:
        raise row.error(f"{part!r}; expected {' or '.join(PARTS)}")
    return PARTS[part]

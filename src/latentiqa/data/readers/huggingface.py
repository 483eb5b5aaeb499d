"""Any image dataset that Hugging Face's `datasets` reads, by the names of its columns."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from latentiqa.data.csv_manifest import PARTS, read_csv
from latentiqa.data.manifest import Manifest
from latentiqa.errors import ConfigError, DataError
from latentiqa.files import build_folder
from latentiqa.hashing import digest
from latentiqa.paths import cache_dir as default_cache_dir

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

TABLE = "manifest.csv"


def read_huggingface(
    path: str,
    config: str | None = None,
    revision: str | None = None,
    image: str = "image",
    mos: str = "mos",
    ref: str | None = None,
    mos_range: Sequence[float] | None = None,
    higher_is_better: bool = True,
    cache_dir: str | Path | None = None,
) -> Manifest:
    """Read a dataset of the Hugging Face hub, or of its format on disk.

    Its pictures are written once, byte by byte as they are, into a folder of the cache. Where it
    has the splits train and test, and perhaps validation, they are the official parts. Code that
    comes with a dataset is not run.

    Args:
        path: a folder (Parquet files, an ``imagefolder``, what ``save_to_disk`` wrote), or an id
            of the hub, which is downloaded; that is said before it starts.
        config: name of a configuration of the dataset.
        revision: commit or tag of the hub.
        image: column of the pictures.
        mos: column of the scores.
        ref: column of the contents, or none.
        mos_range: as for `latentiqa.data.csv_manifest.read_csv`.
        higher_is_better: direction of the scores.
        cache_dir: parent of the folder of pictures; default: `latentiqa.paths.cache_dir`.

    Raises:
        ConfigError: `datasets` is not installed, or an argument is wrong.
        DataError: the dataset cannot be read, lacks a column, or a row of it is broken.
    """
    parts = _load(path, config, revision)
    wanted = [image, mos, *([] if ref is None else [ref])]
    for part, rows in parts.items():
        if absent := [column for column in wanted if column not in rows.column_names]:
            raise DataError(
                f"{path}, {part}: no column {', '.join(absent)}; it has "
                f"{', '.join(rows.column_names)}"
            )
    prints = {part: rows._fingerprint for part, rows in parts.items()}
    name = f"huggingface-{digest([prints, wanted])}"
    folder = Path(default_cache_dir() if cache_dir is None else cache_dir).expanduser() / name
    build_folder(
        folder,
        lambda aside: _write(aside, parts, image, mos, ref),
        lambda there: (there / TABLE).is_file(),
    )
    return read_csv(folder / TABLE, None, mos_range, higher_is_better, Path(path).name)


def _load(path: str, config: str | None, revision: str | None) -> Mapping[str, Dataset]:
    """All splits of a dataset."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "dataset=huggingface needs the extra: pip install 'latentiqa[huggingface]'"
        ) from error
    folder = Path(path).expanduser()
    try:
        if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            loaded: Any = datasets.load_from_disk(str(folder))
        elif folder.is_dir():
            loaded = datasets.load_dataset(str(folder), config)
        else:
            builder = datasets.load_dataset_builder(path, config, revision=revision)
            size = builder.info.download_size
            told = f"{size / 1e9:.1f} GB" if size else "its page does not say how much"
            log.warning("downloading %s from huggingface.co, unless it is there: %s", path, told)
            builder.download_and_prepare()
            loaded = builder.as_dataset()
    except Exception as error:  # of the network, of parsers, of the hub
        raise DataError(
            f"{path}: {error}; expected a folder that Hugging Face's datasets reads, or an id of "
            "its hub"
        ) from error
    if isinstance(loaded, datasets.Dataset):
        loaded = datasets.DatasetDict({"all": loaded})
    return loaded


def _write(
    folder: Path, parts: Mapping[str, Dataset], image: str, mos: str, ref: str | None
) -> None:
    """Write every picture and, last, the table."""
    from datasets import Image as ImageColumn

    official = {"train", "test"} <= set(parts) <= set(PARTS)
    table = [["path", "mos", "ref", "split"]]
    for part, rows in parts.items():
        (folder / part).mkdir()
        # Any: rows are dictionaries, which their type does not say.
        encoded_rows: Any = rows.cast_column(image, ImageColumn(decode=False))
        for number, row in enumerate(encoded_rows):
            encoded = _bytes_of(row[image], f"{part}, row {number}")
            name = f"{part}/{number:06d}.{_suffix(encoded)}"
            (folder / name).write_bytes(encoded)
            content = "" if ref is None else str(row[ref])
            table.append([name, str(row[mos]), content, part if official else ""])
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)


def _bytes_of(picture: dict[str, Any] | None, where: str) -> bytes:
    """A picture as it was encoded, from the table or from the file that it names."""
    picture = picture or {}
    if picture.get("bytes"):
        return picture["bytes"]
    path = Path(picture.get("path") or "")
    if not path.is_file():
        raise DataError(f"{where}: has no picture ({picture})")
    return path.read_bytes()


def _suffix(encoded: bytes) -> str:
    """Suffix of a file's format; what Pillow does not know is found when pictures are read."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return str(image.format).lower()
    except Exception:
        return "bin"

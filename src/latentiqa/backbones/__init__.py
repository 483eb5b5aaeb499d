"""Frozen latent diffusion models in one object each: VAE, denoiser, text encoders, scheduler.

`ldm.LatentDiffusion` is the object, a file for each family of models says what is its own;
`source.BackboneSource` says where weights come from, `layout` what their folder holds; `process`
is how latents are noised, `addresses` names layers and `taps` reads their maps.
"""

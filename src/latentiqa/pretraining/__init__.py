"""Training of small latent diffusion models: autoencoder, text-conditioned denoiser."""

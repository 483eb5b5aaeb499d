"""MAP enhancement: a quality model's score is raised in the latents of an invertible diffusion.

Zhang et al., "When No-Reference Image Quality Models Meet MAP Estimation in Diffusion Latents",
arXiv 2403.06406.
"""

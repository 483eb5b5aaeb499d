"""Quality models compared by the pictures that they make: which ones to show, and what people say.

Zhang et al., "When No-Reference Image Quality Models Meet MAP Estimation in Diffusion Latents",
arXiv 2403.06406: people pick the better of two models' results (2AFC), picks become one ranking.
"""

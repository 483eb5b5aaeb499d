"""GenzIQA (De, Mitra and Soundararajan, arXiv 2406.04654): quality read off cross-attention.

context tokens + "Good Photo." ┐                     ┌> logits of cross-attention ┐
context tokens + "Bad Photo."  ┼> U-Net, noisy latent ┤                           ├> score
picture -> latent + noise      ┘                     └> predicted noise           ┘
"""

"""DP-IQA (Fu et al., arXiv 2405.19996): a fine-tuned diffusion model as a rater of pictures.

prompts -> text adapter ┐
picture -> image adapter ┼-> one pass of the U-Net at t = 1 -> up-block maps -> decoder -> score
picture -> latent ───────┘
"""

"""Pooled U-Net maps over layers and timesteps: pooling, the store on disk, extraction."""

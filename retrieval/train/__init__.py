"""Training of descriptor networks: losses, samplers, augmentation, the loop, its saved state."""

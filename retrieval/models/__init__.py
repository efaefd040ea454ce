"""Networks that turn images into descriptors."""

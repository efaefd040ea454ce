"""Training on stored descriptors instead of images."""

"""Statistics of manifests, images and descriptors."""

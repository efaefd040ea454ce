"""Images in, descriptors out."""

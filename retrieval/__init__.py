"""Images in, descriptors out: manifests, decoding, the network and its training, the descriptor store."""

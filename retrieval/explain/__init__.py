"""Maps of what in two images makes their similarity, and of what in an image makes its class."""

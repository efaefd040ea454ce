"""Descriptor stores: descriptors of a manifest's images in HDF5."""

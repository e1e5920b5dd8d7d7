"""MRCFA."""

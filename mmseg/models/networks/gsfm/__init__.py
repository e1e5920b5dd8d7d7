"""GSFM: key and value encoders with a low-frequency module, memory, and a decoder with a high-frequency module."""

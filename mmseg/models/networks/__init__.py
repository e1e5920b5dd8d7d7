"""Whole networks that are no backbone with a head."""

from mmseg.models.networks.gsfm.network import GSFM

__all__ = ["GSFM"]

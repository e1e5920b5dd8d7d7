"""THE-Mask: temporal-aware hierarchical mask classification (arXiv:2309.08020)."""

"""CFFM and CFFM++."""

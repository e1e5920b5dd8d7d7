"""A local web page on which people try the systems: ``tools/demo.py``, docs/demo.md.

Python's own HTTP server, a page without foreign scripts, fonts or addresses, and one thread that computes.
"""

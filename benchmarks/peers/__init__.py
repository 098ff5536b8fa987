"""Recommenders that Cartwheel is compared with, all in numpy, scipy and the library `implicit`."""

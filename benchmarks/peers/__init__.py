"""The recommenders that Cartwheel is compared with, built with numpy, scipy and the library `implicit`."""

"""The recommenders that Cartwheel is compared with. They use numpy, scipy and the library `implicit`."""

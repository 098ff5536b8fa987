"""Models, one file each, with the functions and classes of `build` and `interface`."""

"""Models, one Python module each, with the functions and classes that `build` and `interface` specify."""

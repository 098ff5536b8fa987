"""Models, one file each; `interface` and `build` define what a model provides."""

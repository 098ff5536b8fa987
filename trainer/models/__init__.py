"""One file a model; `interface` says what each must offer."""

"""The parts of the training loop: steps, sweeps, callbacks, validation, divergence, warm start."""

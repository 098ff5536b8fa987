"""The parts of the training loop: solvers, schedule, callbacks, validation, divergence, warm start, second stage."""

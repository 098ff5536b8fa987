"""Replicas, workers, row-sharded embedding tables and preemption."""

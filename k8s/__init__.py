"""Runs the project's jobs on a Kubernetes cluster: images, manifests, and `submit.py`."""

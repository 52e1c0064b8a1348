"""Transforms that are container images, run by an engine that the machine has: docker, podman, or what behaves so."""

"""From what a user sends (a runtime message, a pod, code) to a checked specification."""

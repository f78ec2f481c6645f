"""What serves the flows: local server, task runners, the hand-over to the GPU pool."""

"""What serves the tasks: caching, restarts, events, live progress, reporting."""

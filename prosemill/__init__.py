"""What the stages do. Knows nothing of Prefect; usable as a library."""

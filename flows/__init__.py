"""When the stages run and in what order: Prefect flows, and the `prosemill` command."""

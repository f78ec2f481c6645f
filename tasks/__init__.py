"""How each stage is retried, cached, timed out and shown: thin Prefect tasks over `prosemill`."""

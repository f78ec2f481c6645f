"""What prosemill is measured by: one command an area, and floors that only rise."""

"""What a person sets: the recipe, its settings, the environment, schedules."""

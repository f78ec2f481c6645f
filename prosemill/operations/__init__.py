"""What an operator needs of a store: backup, databases, health."""

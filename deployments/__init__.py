"""What runs where, and on what schedule: everything an operator touches."""

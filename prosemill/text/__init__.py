"""What every stage needs to know of scripts, words and n-grams: one definition."""

"""What a person is shown: summaries, pages, plots."""

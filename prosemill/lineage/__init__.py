"""From a sentence to the page it came from, and back: OpenLineage, traces, page histories, retractions."""

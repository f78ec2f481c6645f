"""Lineage: OpenLineage events, traces, page histories, retractions."""

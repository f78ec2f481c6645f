"""Peers as programs, each in an environment of its own: their dependencies do not go together with ours."""

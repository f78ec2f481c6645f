"""Peers as programs of their own, each in an environment of its own: their dependencies do not go together with ours."""

"""Several replicas of the engine on a Ray cluster. Needs the extra `scale`."""

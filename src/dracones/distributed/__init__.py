"""Scoring that outlives a process: one table taken up where a kill left it, many shards, many machines."""

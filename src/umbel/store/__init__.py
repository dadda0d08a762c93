"""Durable state: in memory, or in the files of a run directory."""

"""Clusters: which processes a job runs in."""

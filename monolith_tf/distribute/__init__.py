"""Clusters: the processes of a job."""

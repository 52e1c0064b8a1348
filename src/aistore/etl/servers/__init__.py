"""Transforms that are servers of their own: started, reached and talked to."""

"""Turns a file of shopping events into a tuned ALS recommender, every step a Dagster asset."""

from recsys_pipeline.recommender import Recommender, load_model

__all__ = ["Recommender", "load_model"]

"""Who trains: each engine solves ALS in its own way behind `recsys_pipeline.core.search.Trainer`."""

"""Which engine computes: whoever asks for one does not know."""

from recsys_pipeline.engines.engine import Engine


def chosen_engine() -> Engine:
    """The engine that this pipeline runs on."""
    # Imported here: what computes takes a while to load, and the definitions need none of it.
    from recsys_pipeline.engines.local.engine import LocalEngine

    return LocalEngine()

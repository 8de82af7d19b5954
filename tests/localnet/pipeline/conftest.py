from pipeline_world import terms, world

__all__ = ["terms", "world"]

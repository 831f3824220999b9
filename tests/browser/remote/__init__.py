"""The desk's tests once more, with the engine behind HTTP."""

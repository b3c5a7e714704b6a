"""The nearest-neighbour search behind `neighbours`."""

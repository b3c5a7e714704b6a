"""What a training run needs, told before it: memory, the largest batch, the time of a step."""

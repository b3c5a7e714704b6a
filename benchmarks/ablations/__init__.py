"""One question, several arms, several seeds: train, evaluate, compare."""

"""Models made of the weights of others: averages, interpolations, sums of adapters."""

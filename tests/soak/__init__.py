"""P6 for as long as one likes: everything that can go wrong at once, on three brokers, from a seed (`make soak`)."""

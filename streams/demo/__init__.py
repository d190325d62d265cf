"""The believable week that `schleuse demo` plays, and the truth that its generator knows."""

"""Training a denoiser: what it predicts, what it is told, how its weights are averaged, what it must not forget."""

"""Tasks: a loss, metrics and an optimizer around a plain ``nn.Module``; they know nothing of adapters."""

"""Images with masks: cards and readers, whole cases, training crops and the Lightning data module."""

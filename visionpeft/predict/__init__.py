"""A finished run at work: predictions for new files, and figures of masks and of another data set."""

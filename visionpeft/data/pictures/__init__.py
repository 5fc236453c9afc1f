"""Pictures with captions for generative models, in one style or another, divided by what they show."""

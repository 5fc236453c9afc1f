"""Data sets: cards that say where they come from, tables of images, fixed splits and Lightning data modules."""

"""The algebra: sites (where), factors and methods (what). Torch only; knows no module, no file, no recipe."""

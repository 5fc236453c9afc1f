"""Surgery: putting methods on live modules, switching, merging, saving. Imports algebra and methods only."""

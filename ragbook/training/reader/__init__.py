"""The bundled readers' recipe: invented worlds, a curriculum, then each method's own objective."""

"""Pictures that need no download: photographs, scenes, made images."""

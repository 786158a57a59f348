"""Parsers of image and data-set formats."""

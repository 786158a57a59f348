"""The main job end to end on photographs that need no download: learn, be fooled, repair, calibrate, point."""

from dracones.demo.photographs import DemoImages, demo_images
from dracones.demo.story import DemoResult, tell_story

__all__ = ["DemoImages", "DemoResult", "demo_images", "tell_story"]

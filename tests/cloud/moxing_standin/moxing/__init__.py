"""A stand-in for moxing with its documented behaviour: ``obs://bucket/…`` is a folder below ``MOXING_ROOT``."""

from . import file as file

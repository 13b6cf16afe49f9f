"""Coldchain runs the computing of a cryo-EM facility, from the camera to a copy that is proved whole."""

__version__ = "0.1.0"

"""The methods: one file each, algebra only. See CONTRIBUTING.md for adding one."""

from visionpeft.methods.registry import find, make, methods, register

__all__ = ["find", "make", "methods", "register"]

"""The methods: one file each, algebra only. See CONTRIBUTING.md for adding one."""

from visionpeft.callable_module import make_callable
from visionpeft.methods.registry import find, make, methods, register

__all__ = ["find", "make", "methods", "register"]

make_callable(__name__, methods)

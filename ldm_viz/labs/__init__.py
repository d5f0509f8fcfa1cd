"""What needs a pipeline and a picture at once: runs shown while they happen, and conditions tried out.

A module a lab; none is imported before it is used.
"""

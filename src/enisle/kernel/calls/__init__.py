"""The system calls, a module a subject.

`enisle.kernel.handlers` says which module serves which call and imports it when the call first comes.
"""

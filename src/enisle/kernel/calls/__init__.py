"""The system calls, a module a subject; `enisle.kernel.handlers` says which module serves which and imports it when it is first needed."""

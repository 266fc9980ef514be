"""Instructions in software: a decoder of x86-64 and the execution of what a processor lacks or was told not to do.

`decode` tells length, fields and control flow of any 64-bit instruction; `features_of` the CPUID features it needs;
`execute` carries some of them out on a `Context` with the results, flags and faults of a processor. All of it is pure:
no KVM, no Unicorn, no kernel. Only `run` knows the processor seam. Nothing here is imported before it is needed.
"""

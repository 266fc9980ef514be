"""What the hardware, Linux and the wire formats say: structs, bits, numbers, thin calls. No policy.

Its modules are tables, named after the header or manual they restate; import the one you need
(`from enisle.abi import kvm, x86`). Imports nothing of Enisle but `errors`.
"""

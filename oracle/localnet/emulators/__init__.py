"""Stand-ins for services that cannot be reached from a test: written from `specs/`, never from our own clients.

Each keeps books of what was bought, checks authentication, refuses bad input with the documented errors, runs the job
on a model server behind HTTP, and misbehaves on demand (`faults`). They import nothing from `oracle.providers`, so that
adapter and emulator can disagree.
"""

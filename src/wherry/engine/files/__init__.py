"""The files of a container, from outside: copying in and out, differences, export, commit.

Nothing of the container is executed, loaded or trusted. `view` gives a descriptor of its root directory in mounts that
only this process sees; every path is resolved by the kernel from there (openat2, RESOLVE_IN_ROOT), once, to a
descriptor, and only descriptors are used from then on. What a container does to its tree meanwhile can change what is
copied, never where it is copied from or to.
"""

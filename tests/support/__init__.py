"""What the tests of the kernel and of mounts have in common."""

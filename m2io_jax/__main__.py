"""`python -m m2io_jax` is the command `m2io`."""

from m2io_jax.cli import main

if __name__ == "__main__":
    main()

"""m2io_jax: train the model that puts the right pictures in the right places of an answer."""

__version__ = "0.1.0"

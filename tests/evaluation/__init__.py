"""Tests of `seaformer_jax.evaluation`."""

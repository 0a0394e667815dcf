"""Everything that is to be measured on a GPU, in parts; `python -m experiments.gpu_campaign` runs them."""

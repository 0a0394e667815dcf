"""The committed ARM instruction counts, and the check that compares new counts with them."""

"""Wrong inputs: tables of cases as data, and `case.py`, which runs one."""

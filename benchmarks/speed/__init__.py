"""How much time and memory: every ratio comes from one run, as CPU time where a clock would lie."""

"""Systems under test from outside this project, each the process of ``sti.rivals.child``."""

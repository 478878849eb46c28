// Nothing: its target exists for the precompiled header that all tests reuse.

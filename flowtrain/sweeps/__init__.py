"""Which jobs of a sweep run: what is done, what goes on, and what a study asks for next."""

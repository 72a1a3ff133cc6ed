"""The experiments behind the claims of ``run.claims``, one module each."""

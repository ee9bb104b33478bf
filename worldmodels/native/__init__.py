"""Small models without torch: what a structure computes is recorded once and compiled through LLVM."""
